"""One database, two doors: `await db.run(verb, …)` in the web, `with db.session()` in a worker."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import datetime
from functools import cached_property
from importlib import import_module
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from quart import Quart, current_app
from sqlalchemy import URL, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoAnswer
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.expression import BindParameter, bindparam
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.util import await_only, greenlet_spawn

from quart_app import mysql, sqlite
from quart_app.commits import PATIENCE, TRIES, Door, carry_out, is_cut_off
from quart_app.models import Job, Message, Schedule, Time

P = ParamSpec("P")
Row = TypeVar("Row", Job, Message, Schedule)
T = TypeVar("T")

#: What is raised while the database does not answer.
AWAY = (OperationalError, InterfaceError, NoAnswer)
#: Called with the session once its transaction has been committed; must return at once.
Listener = Callable[[Session], None]


def init_app(app: Quart) -> "Database":
    try:
        database = Database(app.config["DATABASE_URL"])
    except OSError as error:
        sys.exit(f"DATABASE_URL: expected PEM files as ssl_ca, ssl_cert and ssl_key ({error})")
    except ValueError as error:
        sys.exit(f"DATABASE_URL: {error}")
    app.extensions["db"] = database
    app.after_serving(database.close)
    return database


async def run(verb: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls `verb(session, …)` in one transaction, without blocking the loop."""
    return await get().run(verb, *args, **kwargs)


async def read(verb: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `run`, for a verb that only reads: it never waits for a writer."""
    return await get().read(verb, *args, **kwargs)


def session(*, reading: bool = False) -> AbstractContextManager[Session]:
    """One transaction for a worker, committed at its end; `reading` promises not to write."""
    return get().session(reading=reading)


def get() -> "Database":
    """The database of the current application."""
    database: Database = current_app.extensions["db"]
    return database


def reason(error: DBAPIError) -> str:
    """The driver's own words, in one line; it never tells a password."""
    return str(error.orig).partition("\n")[0]


def beside_forks(app: Quart) -> "Database":
    """The database of `app`, for a thread of a process that may fork at any time."""
    database: Database = app.extensions["db"]
    # A server's sockets are left alone by the child, which is enough.
    return _BesideForks(app.config["DATABASE_URL"]) if database.is_sqlite else database


class now(FunctionElement[datetime]):  # noqa: N801
    """The database's clock in UTC, `plus` seconds: every time that decides is taken from it.

    `plus` may also be a parameter of the statement.
    """

    type = Time()
    inherit_cache = True

    def __init__(self, plus: float | BindParameter[float] | None = None) -> None:
        if isinstance(plus, (int, float)):
            plus = bindparam("plus", plus, unique=True)
        super().__init__(*([] if plus is None else [plus]))


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: Any, **kwargs: Any) -> str:
    return f"utc_now({compiler.process(element.clauses, **kwargs) or 0})"


@compiles(now)
def _mysql_now(element: now, compiler: Any, **kwargs: Any) -> str:
    plus = compiler.process(element.clauses, **kwargs)
    here_and_now = "UTC_TIMESTAMP(6)"
    if not plus:
        return here_and_now
    return f"TIMESTAMPADD(MICROSECOND, 1000000 * {plus}, {here_and_now})"


_CLOCK = select(now())


def clock(session: Session) -> datetime:
    """What time it is by the database's clock."""
    return session.connection().execute(_CLOCK).scalar_one()


def by_id(session: Session, kind: type[Row], id_: str, *, held: bool = False) -> Row | None:
    """The row with exactly this id, `held` until the commit, against others who change it.

    MySQL cannot even compare the column with other letters, and overlooks spaces at the end.
    """
    found = session.get(kind, id_, with_for_update=held) if id_.isascii() else None
    return found if found is not None and found.id == id_ else None


class _AsyncEngines(NamedTuple):
    """One pool of connections, through two doors."""

    writing: AsyncEngine
    reading: AsyncEngine


class Database:
    """The engines of one URL, made when first used, so that none crosses a fork."""

    def __init__(self, url: str) -> None:
        told = make_url(url)
        self.url = mysql.without_tls(told)
        self._tls = None if self.is_sqlite else mysql.tls(told, url)
        self.after_commit: list[Listener] = []
        self._left_behind: list[Engine] = []
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _AsyncEngines] = (
            WeakKeyDictionary()
        )

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    async def run(
        self, verb: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `commits.carry_out`, and tells who listens once it is committed."""
        door = Door(self._transact_in_loop, lambda seconds: await_only(asyncio.sleep(seconds)))
        session, result = await greenlet_spawn(
            carry_out, door, lambda session: verb(session, *args, **kwargs)
        )
        self._committed(session)
        return result

    def run_here(
        self, verb: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, in a thread that may wait."""
        door = Door(self._transact_here, time.sleep)
        session, result = carry_out(door, lambda session: verb(session, *args, **kwargs))
        self._committed(session)
        return result

    def _transact_in_loop(self, verb: Callable[[Session], T], patience: float) -> T:
        """Within `greenlet_spawn`: other tasks go on while it waits."""

        async def transact() -> T:
            async with self.transaction(self._async_engines.writing, patience) as session:
                return await session.run_sync(verb)

        return await_only(transact())

    def _transact_here(self, verb: Callable[[Session], T], _patience: float) -> T:
        """The patience is the driver's, and the limits that the server sets to a statement."""
        with self._transaction_here() as session:
            return verb(session)

    async def read(
        self, verb: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        tries_left = TRIES
        while True:
            tries_left -= 1
            try:
                async with self.transaction(self._async_engines.reading) as session:
                    return await session.run_sync(verb, *args, **kwargs)
            except DBAPIError as error:
                if not (tries_left and is_cut_off(error)):
                    raise

    @asynccontextmanager
    async def transaction(
        self, engine: AsyncEngine, patience: float = PATIENCE
    ) -> AsyncIterator[AsyncSession]:
        try:
            async with asyncio.timeout(patience):
                async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
                    yield session
        except TimeoutError:
            raise NoAnswer("the database did not answer in time") from None

    @contextmanager
    def session(self, *, reading: bool = False) -> Iterator[Session]:
        """One transaction; `reading` promises not to write, and so never waits for a writer."""
        with self._transaction_here(reading=reading) as session:
            yield session
        self._committed(session)

    @contextmanager
    def _transaction_here(self, *, reading: bool = False) -> Iterator[Session]:
        engine = self.engine.execution_options(begin="DEFERRED") if reading else self.engine
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    def _committed(self, session: Session) -> None:
        for listener in self.after_commit:
            listener(session)

    @cached_property
    def engine(self) -> Engine:
        """The sync engine of a worker, of beat and of the command line."""
        driver = "sqlite" if self.is_sqlite else "mysql+pymysql"
        options = self._options
        if "poolclass" not in options:  # a thread that waited for another's would keep no lease
            options["max_overflow"] = -1
        if not self.is_sqlite:  # the limits of statements are the server's, and it may be cut off
            limits = {"read_timeout": PATIENCE, "write_timeout": PATIENCE}
            options["connect_args"] |= limits | self.encryption
        engine = create_engine(self._driven_by(driver), **options)
        self._prepare(engine)
        return engine

    @property
    def _async_engines(self) -> "_AsyncEngines":
        """Those of the running loop: connections of one loop are of no use to another."""
        loop = asyncio.get_running_loop()
        if loop not in self._of_loops:
            engine = self._make_async_engine()
            reading = engine.execution_options(begin="DEFERRED")
            self._of_loops[loop] = _AsyncEngines(engine, reading)
        return self._of_loops[loop]

    def _make_async_engine(self) -> AsyncEngine:
        driver = "sqlite+aiosqlite" if self.is_sqlite else "mysql+aiomysql"
        options = self._options
        if self._tls:
            connect = import_module("quart_app.encrypted").connect
            options["connect_args"] |= {**self.encryption, "async_creator_fn": connect}
        engine = create_async_engine(self._driven_by(driver), **options)
        self._prepare(engine.sync_engine)
        if self.is_sqlite:
            event.listen(engine.sync_engine.pool, "invalidate", sqlite.free_the_write_lock)
        return engine

    @property
    def encryption(self) -> dict[str, Any]:
        """For PyMySQL, which of itself would try without a word, and load all that is trusted."""
        return {"ssl": self._tls} if self._tls else {"ssl_disabled": True}

    def _prepare(self, engine: Engine) -> None:
        (sqlite if self.is_sqlite else mysql).prepare(engine)

    def _driven_by(self, driver: str) -> URL:
        url = self.url.set(drivername=driver)
        return url if self.is_sqlite else url.update_query_dict({"charset": "utf8mb4"})

    @property
    def _options(self) -> dict[str, Any]:
        # Each session ends its transaction itself: another ROLLBACK would be a round trip more.
        options: dict[str, Any] = {"hide_parameters": True, "pool_reset_on_return": None}
        if self.is_sqlite:
            return options | {"connect_args": {"timeout": 10}}
        return options | {
            "isolation_level": "READ COMMITTED",
            "pool_recycle": 1800,
            "connect_args": {"init_command": mysql.SETUP, "connect_timeout": 5},
        }

    def forget_connections(self) -> None:
        """In a forked child: leaves the parent's connections alone and starts with none."""
        if engine := self.__dict__.pop("engine", None):
            # Kept, since closing them here would speak on the parent's sockets.
            self._left_behind.append(engine)

    async def close(self) -> None:
        if engines := self._of_loops.pop(asyncio.get_running_loop(), None):
            await engines.writing.dispose()
        self.dispose()

    def dispose(self) -> None:
        """Closes what lies idle of the sync connections."""
        if "engine" in self.__dict__:
            self.engine.dispose()


class _BesideForks(Database):
    """SQLite in a process that forks: never open when a child comes to be."""

    @contextmanager
    def _transaction_here(self, *, reading: bool = False) -> Iterator[Session]:
        with sqlite.no_fork, super()._transaction_here(reading=reading) as session:
            yield session

    @property
    def _options(self) -> dict[str, Any]:
        # A fork waits as long as this one does for other writers.
        return super()._options | {"poolclass": NullPool, "connect_args": {"timeout": 3}}
