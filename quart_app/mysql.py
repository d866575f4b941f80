"""MySQL and MariaDB: how a connection is set up, and when it is asked whether it still lives."""

import ssl
import time
from functools import partial
from typing import Any

from sqlalchemy import URL, Dialect, Engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

# UTC and strict mode whatever the server's defaults; MariaDB reads the first comment, MySQL the
# second: a statement may take ten seconds, so that a cancelled request cannot hold a row for long.
SETUP = (
    "SET time_zone='+00:00', sql_mode=CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES'),"
    " innodb_lock_wait_timeout=10"
    " /*M!100101 , max_statement_time=10 */ /*!50708 , max_execution_time=10000 */"
)
_UNKNOWN_DATABASE = 1049
_NO_SUCH_COLUMN = 1054
#: Seconds of rest after which a connection may have been cut off unseen.
_REST = 1.0
#: What the query of a URL may say of TLS, by the names that SQLAlchemy has for it.
_TLS = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname")
#: What else it may say: each of these is known to both drivers.
_OTHER = ("charset", "unix_socket", "program_name", "read_default_file", "read_default_group")


def tls(url: URL, text: str) -> ssl.SSLContext | None:
    """How the server is to be trusted, for both drivers; None where the URL says nothing of it.

    `text` is the URL as it was given. Raises ValueError for what no driver would understand or
    heed, OSError for a file that cannot be read or makes no sense.
    """
    told = {name: str(url.query[name]) for name in _TLS if name in url.query}
    # SQLAlchemy drops what is empty: an unset variable would mean plain text.
    query = text.partition("?")[2]
    names = [part.partition("=")[0] for part in query.split("&") if query]
    if odd := [name for name in names if name not in told and name not in _OTHER]:
        raise ValueError(f"{odd[0]}: expected one of {', '.join(_TLS + _OTHER)}, with a value")
    if "ssl_key" in told and "ssl_cert" not in told:
        raise ValueError("ssl_key: expected ssl_cert beside it")
    if not told:
        return None
    context = ssl.create_default_context(cafile=told.get("ssl_ca"))
    # The certificates that MySQL makes for itself lack what Python 3.13 insists on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = told.get("ssl_check_hostname", "").lower() not in ("false", "0", "no")
    if "ssl_cert" in told:
        context.load_cert_chain(told["ssl_cert"], told.get("ssl_key"))
    return context


def without_tls(url: URL) -> URL:
    """The URL as both drivers understand it."""
    return url.difference_update_query(_TLS)


def is_missing(error: DBAPIError) -> bool:
    """Whether the server answers, and has no such database."""
    return error.orig is not None and error.orig.args[:1] == (_UNKNOWN_DATABASE,)


def is_incomplete(error: DBAPIError) -> bool:
    """Whether a column is not there, which the driver takes for a fault of the server."""
    return error.orig is not None and error.orig.args[:1] == (_NO_SUCH_COLUMN,)


def creation(url: URL) -> str:
    """What to do about that."""
    return f"create it with: CREATE DATABASE `{url.database}` CHARACTER SET utf8mb4"


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
