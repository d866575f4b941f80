"""The database: what both kinds have in common, and what each needs to be safe."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.db import Database
from quart_app.models import Event, Message, MessageState
from tests.book import Book, at_once
from tests.conftest import Place

TEXT = "Grüße, 你好世界 😀👩‍👩‍👧 \\ ' \" % \n"
AT = datetime(2026, 3, 29, 1, 59, 59, 123_457, tzinfo=UTC)


@pytest.fixture
async def database(book: Book, place: Place) -> AsyncIterator[Database]:
    """As the web has it, with one message in it."""
    database = Database(place.database_url)
    await database.run(add, "one")
    yield database
    await database.close()


@pytest.fixture
async def sqlite(database: Database) -> Database:
    return database if database.is_sqlite else pytest.skip("of SQLite alone")


@pytest.fixture
async def mysql(database: Database) -> Database:
    return pytest.skip("of MySQL alone") if database.is_sqlite else database


def add(session: Session, /, id_: str, **columns: Any) -> None:
    given = {"to": "+1", "text": "", "state": MessageState.WAITING, "created_at": db.now()}
    session.add(Message(id=id_, **given | columns))
    session.flush()


def message(session: Session, id_: str = "one") -> Message:
    return session.scalars(select(Message).where(Message.id == id_)).one()


def scalar(session: Session, statement: str) -> Any:
    return session.scalar(text(statement))


async def through(door: str, database: Database, *call: Any) -> Any:
    """What `database.run(…)` returns, or its `read` or `run_here`."""
    if door == "run_here":
        here: Callable[..., Any] = database.run_here
        return await asyncio.to_thread(here, *call)
    return await getattr(database, door)(*call)


def count_up(session: Session) -> None:
    """Reads, then writes what it read plus one: loses updates where nothing guards it."""
    if session.get_bind().dialect.name == "sqlite":
        found = message(session)
    else:
        found = session.scalars(select(Message).with_for_update()).one()
    found.text = str(int(found.text or 0) + 1)


def committed(database: Database) -> int:
    """How many messages another connection sees."""
    with Session(database.engine.execution_options(begin="DEFERRED")) as session:
        return len(session.scalars(select(Message)).all())


def add_and_fail(session: Session) -> None:
    add(session, "lost")
    raise ZeroDivisionError


async def test_text_and_microseconds_survive_the_round_trip(database: Database) -> None:
    await database.run(add, "two", text=TEXT, sent_at=AT)
    with database.session(reading=True) as session:
        found = message(session, "two")
    assert (found.text, found.sent_at) == (TEXT, AT)
    again = await database.read(message, "two")
    assert (again.text, again.sent_at) == (TEXT, AT)


async def test_a_time_of_another_zone_is_kept_as_the_same_instant(database: Database) -> None:
    await database.run(add, "two", sent_at=AT.astimezone())
    found = await database.read(message, "two")
    assert found.sent_at == AT
    assert found.sent_at.tzinfo is UTC


@pytest.mark.parametrize("plus", [0, 0.25, -0.000_001, 15.0, -86400.5, 316_224_000])
async def test_the_clock_of_the_database_adds_seconds(database: Database, plus: float) -> None:
    both = partial(lambda session: session.execute(select(db.now(), db.now(plus))).one())
    now, then = await database.read(both)
    assert abs(then - now - timedelta(seconds=plus)) < timedelta(milliseconds=200)
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)
    assert now.tzinfo is UTC


@pytest.mark.parametrize("door", ["run", "run_here"])
async def test_run_commits_and_an_error_rolls_all_of_it_back(database: Database, door: str) -> None:
    await through(door, database, add, "two")
    with pytest.raises(ZeroDivisionError):
        await through(door, database, add_and_fail)
    with suppress(ZeroDivisionError), database.session() as session:
        add_and_fail(session)
    ids = await database.read(lambda session: set(session.scalars(select(Message.id))))
    assert ids == {"one", "two"}


async def test_hooks_run_after_a_commit_and_never_without_one(database: Database) -> None:
    seen: list[int] = []
    database.after_commit.append(lambda _: seen.append(committed(database)))
    await database.run(add, "two")
    with suppress(ZeroDivisionError):
        await database.run(add_and_fail)
    with suppress(ZeroDivisionError), database.session() as session:
        add_and_fail(session)
    with database.session() as session:
        add(session, "three")
    await through("run_here", database, add, "four")
    assert seen == [2, 3, 4]


async def test_foreign_keys_hold(database: Database) -> None:
    def orphan(session: Session) -> None:
        session.add(Event(job_id="none", seq=1, at=db.now(), type="log", data={}))
        session.flush()

    with pytest.raises(IntegrityError):
        await database.run(orphan)


async def test_each_of_many_threads_has_a_connection(database: Database) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            session = stack.enter_context(database.session(reading=True))
            assert session.scalar(text("SELECT 1")) == 1


async def test_no_update_is_lost_between_writers_of_both_sides(database: Database) -> None:
    def sync_writer() -> None:
        for _ in range(10):
            with database.session() as session:
                count_up(session)

    threads = asyncio.to_thread(at_once, [sync_writer] * 2)
    done = await asyncio.gather(threads, *(database.run(count_up) for _ in range(10)))
    assert done[0] == [None, None]
    assert (await database.read(message)).text == "30"


async def test_no_update_is_lost_between_processes(database: Database) -> None:
    code = (
        "from tests.test_db import Database, count_up\n"
        f"database = Database({database.url.render_as_string(hide_password=False)!r})\n"
        "for _ in range(20):\n    with database.session() as session: count_up(session)"
    )
    argv = [sys.executable, "-c", code]
    children = [await asyncio.create_subprocess_exec(*argv) for _ in range(2)]
    for _ in range(20):
        await database.run(count_up)
    assert [await child.wait() for child in children] == [0, 0]
    assert (await database.read(message)).text == "60"


async def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.session() as writing:
        writing.execute(update(Message).values(text="new"))
        assert (await database.read(message)).text == ""
        with database.session(reading=True) as reading:
            assert message(reading).text == ""
    assert (await database.read(message)).text == "new"


async def test_a_request_cancelled_within_a_statement_leaves_no_lock(database: Database) -> None:
    slow = SLOW_SQLITE if database.is_sqlite else SLOW_MYSQL
    for _ in range(3):
        request = asyncio.create_task(database.run(slow_write, slow))
        await asyncio.sleep(0.2)  # until the statement runs: nothing tells when
        started = monotonic()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await database.run(add, f"after {started}")
        assert monotonic() - started < 8


SLOW_SQLITE = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000000)"
    " SELECT count(*) FROM n"
)
SLOW_MYSQL = "SELECT SLEEP(5)"


def slow_write(session: Session, slow: str) -> None:
    add(session, "slow")
    session.execute(text(slow))


def test_a_forked_child_has_connections_of_its_own(book: Book) -> None:
    book.database.engine.dispose()
    mine = book(connection_id)
    child = os.fork()
    if child == 0:
        book.database.forget_connections()
        os._exit(0 if book(connection_id) != mine and book.count(Message) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert book(connection_id) == mine


def connection_id(session: Session) -> Any:
    raw: Any = session.connection().connection.dbapi_connection
    return raw.thread_id() if hasattr(raw, "thread_id") else id(raw)


async def test_sqlite_is_durable_and_lets_readers_read(sqlite: Database) -> None:
    for pragma, value in {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}.items():
        assert await sqlite.read(scalar, f"PRAGMA {pragma}") == value
        with sqlite.session() as session:
            assert scalar(session, f"PRAGMA {pragma}") == value


@pytest.mark.parametrize("side", ["web", "worker"])
async def test_a_new_file_that_another_is_writing_to_is_waited_for(
    tmp_path: Path, side: str
) -> None:
    other = sqlite3.connect(tmp_path / "new", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    end = Timer(0.2, other.execute, ["COMMIT"])
    end.start()
    met = Database(f"sqlite:///{tmp_path}/new")
    if side == "web":
        assert await met.read(scalar, "PRAGMA journal_mode") == "wal"
    else:
        with met.session(reading=True) as session:
            assert scalar(session, "PRAGMA journal_mode") == "wal"
    end.join()
    await met.close()
    other.close()


async def test_sqlite_takes_its_write_lock_at_the_beginning(sqlite: Database) -> None:
    other = sqlite3.connect(sqlite.url.database or "", timeout=0)
    with sqlite.session() as session:
        scalar(session, "SELECT 1")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()


@pytest.mark.parametrize("side", ["web", "worker"])
async def test_mysql_is_set_up_as_it_must_be(mysql: Database, side: str) -> None:
    names = ("tx_isolation", "character_set_connection", "time_zone", "max_statement_time")
    query = f"SELECT CONCAT_WS(',', {', '.join(f'@@{name}' for name in names)})"
    with mysql.session() as session:
        found = scalar(session, query) if side == "worker" else await mysql.run(scalar, query)
        assert found == "READ-COMMITTED,utf8mb4,+00:00,10.000000"
        assert "STRICT_TRANS_TABLES" in scalar(session, "SELECT @@sql_mode")


def cut_off(database: Database, session: Session) -> None:
    """Ends the session's connection at the server, as a restart of it does."""
    with database.session() as other:
        other.execute(text(f"KILL {scalar(session, 'SELECT CONNECTION_ID()')}"))


@pytest.mark.parametrize("door", ["run", "run_here", "read"])
async def test_what_was_cut_off_before_its_commit_is_done_again(mysql: Database, door: str) -> None:
    texts: list[str] = []

    def verb(session: Session) -> None:
        texts.append(message(session).text)
        if len(texts) == 1:
            session.execute(update(Message).values(text="undone"))
            cut_off(mysql, session)
        scalar(session, "SELECT 1")

    await through(door, mysql, verb)
    assert texts == ["", ""]


async def test_an_idle_connection_that_was_cut_off_is_replaced_unseen(
    mysql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quart_app.mysql._REST", 0)
    of_the_web = await mysql.run(scalar, "SELECT CONNECTION_ID()")
    with mysql.session() as session:
        of_the_worker = scalar(session, "SELECT CONNECTION_ID()")
        session.execute(text(f"KILL {of_the_web}"))
    calls: list[int] = []
    await mysql.run(lambda s: calls.append(scalar(s, "SELECT CONNECTION_ID()")))
    assert len(calls) == 1
    assert calls != [of_the_web]
    await mysql.run(lambda s: s.execute(text(f"KILL {of_the_worker}")))
    with mysql.session() as session:
        assert scalar(session, "SELECT CONNECTION_ID()") != of_the_worker


@pytest.mark.parametrize("door", ["run", "run_here"])
async def test_a_deadlock_on_mysql_is_tried_again(mysql: Database, door: str) -> None:
    await mysql.run(add, "two")
    tries: list[str] = []

    await asyncio.gather(
        *(through(door, mysql, swap, *ids, tries) for ids in (("one", "two"), ("two", "one")))
    )
    assert len(tries) == 3
    assert {(await mysql.read(message, id_)).text for id_ in ("one", "two")} <= {"one", "two"}


def swap(session: Session, first: str, second: str, tries: list[str]) -> None:
    """Writes one row, then the other; the first two times slowly, so that they meet."""
    session.execute(update(Message).where(Message.id == first).values(text=first))
    tries.append(first)
    while len(tries) < 2:
        session.execute(text("SELECT SLEEP(0.02)"))
    session.execute(update(Message).where(Message.id == second).values(text=first))
