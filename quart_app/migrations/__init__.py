"""The schema's history (Alembic): `upgrade` brings a database to the newest, once at a time."""

import asyncio
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from quart import Quart
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError

from quart_app.db import Database
from quart_app.errors import Problem

_VERSIONS = Path(__file__).with_name("versions")


class Behind(Problem):
    """The database's schema is not the one this version works with."""

    status = 503
    title = "Schema is behind"


def init_app(app: Quart) -> None:
    @app.before_serving
    async def meet() -> None:
        """A web by itself upgrades SQLite, as a worker does; what it cannot, `/readyz` tells."""
        database: Database = app.extensions["db"]
        if database.is_sqlite:
            with suppress(OperationalError, Behind):
                await asyncio.to_thread(upgrade, database)


def upgrade(database: Database) -> str:
    """Brings the schema to the newest revision and returns its name."""
    if database.is_sqlite:
        path = Path(database.url.database or "")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with suppress(OSError):  # SQLite will say so
                # Whosever folder it lies in; what SQLite lays beside it is as private.
                path.touch(mode=0o600)
    if current(database) != head():
        # Alembic would make up a fifth of every start, and nearly none of them needs it.
        import_module("quart_app.migrations.history").upgrade(database)
    return head()


def current(database: Database) -> str | None:
    """The revision the database is at, None when it has no tables of ours."""
    if database.is_sqlite and not Path(database.url.database or "").exists():
        return None
    with database.session(reading=True) as session:
        if not inspect(session.connection()).has_table("alembic_version"):
            return None
        return session.scalar(text("SELECT version_num FROM alembic_version"))


def head() -> str:
    """The newest revision; each file's name begins with its own, and they sort by age."""
    return max(path.name for path in _VERSIONS.glob("[0-9]*_*.py")).partition("_")[0]


def ensure(database: Database) -> None:
    """SQLite is upgraded as it is met; a server's schema is for its operator. Raises Behind."""
    if database.is_sqlite:
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
