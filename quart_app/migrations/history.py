"""Runs Alembic on a database while nobody else does; imported only where there is work for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from pymysql import OperationalError
from pymysql.constants import ER
from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from quart_app.db import Database
from quart_app.migrations import Behind

_LOCK = "quartermaster.migrations"
_PATIENCE = 60
#: There is such a table, column or index already, or none to be dropped.
_DONE = (ER.TABLE_EXISTS_ERROR, ER.DUP_FIELDNAME, ER.DUP_KEYNAME, ER.CANT_DROP_FIELD_OR_KEY)


def upgrade(database: Database) -> None:
    """Raises Behind when the database is at a revision that this version does not know."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with _alone(database) as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Behind(f"The database was made by a newer version: {error}") from None


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """A connection with which no other process migrates meanwhile, in one transaction."""
    if database.is_sqlite:
        # Alembic, left to itself, would commit each revision and let another process in between.
        with database.engine.execution_options(begin="EXCLUSIVE").begin() as connection:
            yield connection
        return
    # Of its own, since the others are limited to short statements.
    url, how = database.engine.url, database.encryption
    with create_engine(url, poolclass=NullPool, connect_args=how).begin() as connection:
        name = {"name": _LOCK, "patience": _PATIENCE}
        if not connection.scalar(text("SELECT GET_LOCK(:name, :patience)"), name):
            raise Behind(f"Another process has been migrating for {_PATIENCE} s: try again later.")
        is_ours = inspect(connection).has_table("alembic_version")
        if is_ours:
            event.listen(connection.engine, "do_execute", _unless_it_is_done)
        try:
            yield connection
        except sqlalchemy.exc.OperationalError as error:
            if error.orig and error.orig.args[0] in _DONE:  # a table of somebody else's
                connection.execute(text("DROP TABLE alembic_version"))
            raise


def _unless_it_is_done(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
    """Goes on where an upgrade was cut off: the server commits each statement that makes a table,
    a column or an index by itself, but a revision counts as done only with its last one."""
    try:
        cursor.execute(statement, parameters)
    except OperationalError as error:
        if error.args[0] not in _DONE:
            raise
    return True
