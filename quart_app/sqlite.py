"""SQLite made safe for many writers: its transactions, its clock, its letters and its forks."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

#: Held while a connection is open in a process that forks. A child that came to be meanwhile would
#: hold the parent's file locks for its own, and those that a thread of the parent had would never
#: be free in it.
no_fork = threading.Lock()

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
#: Seconds between tries: together as long as one writer waits for another.
_SWITCH_AGAIN_AFTER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 2, 4)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release
    )


def prepare(engine: Engine) -> None:
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)


def free_the_write_lock(connection: Any, _record: ConnectionPoolEntry, _error: Any) -> None:
    """A request cancelled within a statement would else keep the write lock until a collection."""
    worker = connection._connection
    raw: sqlite3.Connection | None = worker._connection
    if raw is not None:
        over = threading.Event()

        def roll_back() -> None:
            over.set()
            raw.rollback()

        rollback: tuple[Awaitable[None] | None, Callable[[], None]] = (None, roll_back)
        worker._tx.put_nowait(rollback)
        _interrupt(raw, over)


def _interrupt(raw: sqlite3.Connection, over: threading.Event) -> None:
    """Again and again: it does nothing to a statement that the thread is only about to begin."""
    if not over.is_set():
        raw.interrupt()
        asyncio.get_running_loop().call_later(0.02, _interrupt, raw, over)


def _connect(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions are begun by _begin alone
    connection.create_function("utc_now", 1, _utc_now)
    # SQLite's own knows no letters but a to z.
    connection.create_function("lower", 1, _lower, deterministic=True)
    _write_ahead(connection)
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(connection: Any) -> None:
    # Of those who meet a new file at once all but one are refused, however long they would wait.
    for seconds in (*_SWITCH_AGAIN_AFTER, None):
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # Its lowest byte tells the kind; a driver's own errors have none.
            if seconds is None or getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BUSY:
                raise
        finally:
            cursor.close()
        _sleep(connection, seconds)


def _sleep(connection: Any, seconds: float) -> None:
    if hasattr(connection, "run_async"):
        connection.run_async(lambda _: asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def _begin(connection: Any) -> None:
    # A deferred transaction that turns into a writer fails at once when another wrote meanwhile.
    mode = connection.get_execution_options().get("begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _utc_now(plus: float) -> str:
    time = datetime.now(UTC) + timedelta(seconds=plus)
    return time.strftime("%Y-%m-%d %H:%M:%S.%f")


def _lower(text: str | None) -> str | None:
    return text and text.lower()
