"""The tables alone: verbs called on them as a worker calls them, from any thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

from quart import Quart
from sqlalchemy import delete, event, func, select

from quart_app import db, events, jobs
from quart_app.celeryext import in_app_context
from quart_app.models import Base, Job

T = TypeVar("T")
ADD = "tests.sample_tasks.add"


class Book:
    """The database of an application that does not serve: nothing is rung or announced."""

    def __init__(self, app: Quart) -> None:
        self.app = app
        self.database: db.Database = app.extensions["db"]
        self.database.after_commit.clear()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Empty, and afterwards configured as before."""
        config = dict(self.app.config)
        with self.database.session() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(delete(table))
        yield
        self.app.config.update(config)
        self.app.extensions.pop("queue_depths", None)

    def __call__(self, verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`verb(session, …)` in a transaction of its own."""
        with self.transaction() as call:
            result: T = call(verb, *args, **kwargs)
        return result

    @contextmanager
    def transaction(self) -> Iterator[Callable[..., Any]]:
        """Verbs called within the block share its transaction."""
        with self.database.session() as session:
            yield lambda verb, *args, **kwargs: in_app_context(
                self.app, lambda: verb(session, *args, **kwargs)
            )

    def submit(self, task: str = ADD, **options: Any) -> Job:
        options.setdefault("args", [1])
        return self(jobs.submit, task, **options)

    def job(self, job_id: str) -> Job:
        return self(jobs.get, job_id)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        return self(events.since, job_id)

    def count(self, what: Any = Job) -> int:
        return self(lambda session: session.scalars(select(func.count()).select_from(what)).one())

    def set(self, row: Any, **values: Any) -> None:
        """Changes columns of one row behind the domain's back."""
        self(lambda session: _change(session.merge(row), values))

    @contextmanager
    def interrupted(self, change: str, *, before: str, turn: int = 1) -> Iterator[None]:
        """Makes the change at that turn of a statement, as if another had just committed it."""
        turns = count(1)

        def look(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(before) and next(turns) == turn:
                cursor.execute(change)

        event.listen(self.database.engine, "before_cursor_execute", look)
        try:
            yield
        finally:
            event.remove(self.database.engine, "before_cursor_execute", look)

    def close(self) -> None:
        asyncio.run(self.database.close())


def at_once(work: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Calls all of it in threads that start together; what each returned or raised."""
    start = threading.Barrier(len(work))

    def call(one: Callable[[], T]) -> T | Exception:
        start.wait()
        try:
            return one()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(work)) as threads:
        return list(threads.map(call, work))


def _change(row: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)
