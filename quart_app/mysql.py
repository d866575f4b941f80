"""MySQL and MariaDB: how a connection is set up, and when it is asked whether it still lives."""

import time
from functools import partial
from typing import Any

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

# UTC and strict mode whatever the server's defaults; MariaDB reads the first comment, MySQL the
# second: a statement may take ten seconds, so that a cancelled request cannot hold a row for long.
SETUP = (
    "SET time_zone='+00:00', sql_mode=CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES'),"
    " innodb_lock_wait_timeout=10"
    " /*M!100101 , max_statement_time=10 */ /*!50708 , max_execution_time=10000 */"
)
#: Seconds of rest after which a connection may have been cut off unseen.
_REST = 1.0


def prepare(engine: Engine) -> None:
    event.listen(engine, "checkin", _rest)
    event.listen(engine, "checkout", partial(_wake, engine.dialect))


def _rest(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["idle_since"] = time.monotonic()


def _wake(dialect: Dialect, connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
    """Pings what lay idle; a busy connection would be asked once for each transaction."""
    idle_since = record.info.pop("idle_since", None)
    if idle_since is None or time.monotonic() - idle_since < _REST:
        return
    try:
        dialect.do_ping(connection)
    except Exception as error:  # whatever the driver raises: all that are as old go with it
        raise InvalidatePoolError from error
