"""The schema's history (Alembic): `upgrade` brings a database to the newest, once at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from quart_app.db import Database
from quart_app.errors import Problem

_LOCK = "quartermaster.migrations"
_PATIENCE = 60


class Behind(Problem):
    """The database's schema is not the one this version works with."""

    title = "Schema is behind"


def upgrade(database: Database) -> str:
    """Brings the schema to the newest revision and returns its name."""
    if database.is_sqlite:
        Path(database.url.database or "").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(database) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head()


def current(database: Database) -> str | None:
    """The revision the database is at, None when it has no tables of ours."""
    with database.session(reading=True) as session:
        if not inspect(session.connection()).has_table("alembic_version"):
            return None
        return session.scalar(text("SELECT version_num FROM alembic_version"))


def head() -> str:
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def ensure(database: Database) -> None:
    """SQLite is upgraded as it is met; a server's schema is for its operator. Raises Behind."""
    if database.is_sqlite:
        if not Path(database.url.database or "").exists() or current(database) != head():
            upgrade(database)
        return
    try:
        revision = current(database)
    except OperationalError:
        return  # away, not behind: it may be back any moment
    if revision != head():
        raise Behind(
            "The database is not at the current schema: run `python3 run.py migrate`"
            f" (it is at {revision or 'nothing'}, this version works with {head()})."
        )


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """A connection with which no other process migrates meanwhile."""
    if database.is_sqlite:
        with database.engine.execution_options(begin="EXCLUSIVE").connect() as connection:
            yield connection
        return
    # Of its own, since the others are limited to short statements.
    with create_engine(database.engine.url, poolclass=NullPool).connect() as connection:
        name = {"name": _LOCK, "patience": _PATIENCE}
        connection.execute(text("SELECT GET_LOCK(:name, :patience)"), name)
        yield connection


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config
