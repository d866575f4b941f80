"""Every test that takes `place` runs twice: on SQLite with the embedded Redis, and on MariaDB."""

import gc
import importlib.util
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from quart.typing import TestClientProtocol
from redis import Redis
from sqlalchemy import delete

from quart_app import migrations, tokens
from quart_app.app import create_app
from quart_app.db import Database
from quart_app.models import Base, Node, Role
from quart_app.relay import Relay
from settings import broker_url
from tests import real
from tests.book import Book
from tests.cutter import Cutter
from tests.ledger import Ledger

STRICT = bool(os.environ.get("QM_TEST_STRICT"))


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the collector need not go through it each time."""
    gc.freeze()


@dataclass(frozen=True)
class Place:
    """A database and a Redis for the tests, and the folder of an instance."""

    name: str
    var: Path
    database_url: str
    redis_url: str

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that works here."""
        place = {
            "VAR_DIR": str(self.var),
            "SECRET_KEY": "a secret of the tests",
            "DATABASE_URL": self.database_url,
            "CELERY_IMPORTS": real.TASKS,
            "ALLOW_DIRECT_CALLS": "true",
        }
        return place | ({} if self.name == "sqlite" else {"REDIS_URL": self.redis_url})

    @cached_property
    def database(self) -> Database:
        """For a test that needs no application."""
        database = Database(self.database_url)
        _opened.append(database)
        return database

    def app(self, **config: Any) -> Quart:
        place = {
            "VAR_DIR": self.var,
            "SECRET_KEY": "a secret of the tests",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "CELERY_BROKER_URL": broker_url(self.redis_url),
            "CELERY_IMPORTS": real.TASKS.split(","),
            "ALLOW_DIRECT_CALLS": True,
        }
        app = create_app(place | config)
        _made.append(app)
        return app


_made: list[Quart] = []
_opened: list[Database] = []


@pytest.fixture(autouse=True)
def _close_databases() -> Iterator[None]:
    """Python 3.13 warns of each connection to SQLite that only the collector closes."""
    yield
    while _made:
        extensions = _made.pop().extensions
        extensions["publisher"].close()  # its thread notes what it rang
        database = extensions["db"]
        if "engine" in vars(database):
            real.until(partial(_is_idle, database.engine.pool))
        database.dispose()
    for database in _opened:
        database.dispose()


def _is_idle(pool: Any) -> bool:
    """Whether no other thread, such as one that keeps leases, has one of its connections."""
    return bool(pool.checkedout() == 0)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """`kept(opened, …)` is `opened(folder, …)`, entered once and left after the last test.

    A fixture of the session would end whenever the parameter of the tests changes, file by file.
    """
    with ExitStack() as stack:

        @cache
        def once(opened: Callable[..., AbstractContextManager[Any]], *args: Any) -> Any:
            return stack.enter_context(opened(tmp_path_factory.mktemp(opened.__name__), *args))

        yield once


@pytest.fixture(scope="session", params=["sqlite", "mariadb"])
def places(request: pytest.FixtureRequest, kept: Callable[..., Any]) -> list[Place]:
    """A quiet one, and one where the worker that tests share is at work."""
    found: list[Place] = kept(_migrated, _sqlite if request.param == "sqlite" else _mariadb)
    return found


@contextmanager
def _migrated(
    folder: Path, start: Callable[[Path], AbstractContextManager[list[Place]]]
) -> Iterator[list[Place]]:
    with start(folder) as found:
        for place in found:
            migrations.upgrade(place.database)
        yield found


@pytest.fixture(scope="session")
def place(places: list[Place]) -> Place:
    return places[0]


@contextmanager
def _sqlite(folder: Path) -> Iterator[list[Place]]:
    quiet, busy = folder / "quiet", folder / "busy"
    with real.embedded_valkey(quiet) as first, real.embedded_valkey(busy) as second:
        yield [
            Place("sqlite", var, f"sqlite:///{var}/quartermaster.sqlite3", url)
            for var, url in ((quiet, first), (busy, second))
        ]


@contextmanager
def _mariadb(folder: Path) -> Iterator[list[Place]]:
    given, server = os.environ.get("TEST_MYSQL_URL", ""), real.mariadbd()
    if not (given or server):
        missing("MariaDB: set TEST_MYSQL_URL or install mariadb-server")
    database = nullcontext(given) if given else real.mariadb(server or "", folder)
    with database as url, real.redis_server(folder) as first, real.redis_server(folder) as second:
        yield [
            Place("mariadb", folder / "quiet", url, first),
            Place("mariadb", folder / "busy", real.another_database(url), second),
        ]


def missing(what: str) -> None:
    """Skips for want of something; where all must be tested, fails."""
    if STRICT:
        pytest.fail(f"not found: {what}")
    pytest.skip(what)


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        missing(module)


@pytest.fixture
def closed() -> Iterator[str]:
    """An address where nobody listens, and nobody else can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def clean(places: list[Place], request: pytest.FixtureRequest) -> Place:
    """The place, with nothing in its tables and its Redis but the worker that tests share."""
    busy = "worker" in request.fixturenames
    place = places[busy]
    database = place.database
    with database.session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            if not (busy and table.name == Node.__tablename__):
                session.execute(delete(table))
    database.dispose()
    with Redis.from_url(place.redis_url) as client:
        client.flushall()
    return place


@pytest.fixture
def cutter(clean: Place) -> Iterator[Cutter]:
    """Before the database of the place, for whoever comes by its `url`."""
    if clean.name == "sqlite":
        pytest.skip("no network lies before SQLite")
    cutter = Cutter(clean.database_url)
    cutter.start()
    yield cutter
    cutter.close()


@pytest.fixture
async def app(clean: Place) -> AsyncIterator[Quart]:
    """The application as it serves, its relay and its listener running."""
    app = clean.app()
    async with app.test_app():
        yield app


@pytest.fixture(scope="session")
def kept_book(place: Place) -> Iterator[Book]:
    book = Book(place.app())
    yield book
    book.close()


@pytest.fixture
def book(kept_book: Book) -> Iterator[Book]:
    """The tables alone and empty, for verbs that are called as a worker calls them."""
    with kept_book.opened():
        yield kept_book


@pytest.fixture
def ledger(clean: Place) -> Iterator[Ledger]:
    """The ledger with a relay at work, and no web."""
    app = clean.app()
    with working(app):
        yield Ledger(app)


@pytest.fixture
def still(clean: Place) -> Iterator[Ledger]:
    """The ledger, with no relay but what the test itself starts."""
    app = clean.app()
    yield Ledger(app)
    app.extensions["publisher"].close()


@contextmanager
def working(app: Quart) -> Iterator[None]:
    """The application as it relays and publishes, until the block ends."""
    relay = Relay(app)
    relay.start()
    try:
        yield
    finally:
        relay.stop()
        app.extensions["publisher"].close()


@pytest.fixture
def token(app: Quart) -> str:
    return make_token(app.extensions["db"], Role.OPERATOR)


def make_token(database: Database, role: Role, name: str = "", **limits: Any) -> str:
    """A token named as its role, if not otherwise."""
    with database.session() as session:
        return tokens.create(session, name or role.value, role, **limits)


@pytest.fixture
def client(app: Quart, token: str) -> TestClientProtocol:
    """Speaks to the application as an operator."""
    return speaking(app, token)


def caller(app: Quart, role: Role) -> "Caller":
    return speaking(app, make_token(app.extensions["db"], role))


def speaking(app: Quart, secret: str) -> "Caller":
    """A program that has this token."""
    return Caller(app.test_client(), {"Authorization": f"Bearer {secret}"})


class Caller:
    """A test client that sends the same headers with every request."""

    def __init__(self, client: Any, headers: Mapping[str, str]) -> None:
        self._client, self._headers = client, headers

    def __getattr__(self, name: str) -> Any:
        def call(path: str, **options: Any) -> Any:
            headers = dict(self._headers) | dict(options.pop("headers", {}))
            return getattr(self._client, name)(path, headers=headers, **options)

        return call


@pytest.fixture(scope="session")
def worker(places: list[Place], kept: Callable[..., Any]) -> Path:
    """A real worker, started as the study guide starts it; the file of its log."""
    log: Path = kept(_worker, places[1])
    return log


@contextmanager
def _worker(folder: Path, place: Place) -> Iterator[Path]:
    log = folder / "worker.log"
    argv = real.python("celery", "-A", "tasks", "worker", "--loglevel=info", "--concurrency=2")
    with real.process(argv, place.env | {"JOB_LEASE": "3"}, log):
        real.until(lambda: " ready." in log.read_text())
        yield log
