"""What each verb of the ledger takes, in several databases by turns."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

from sqlalchemy import delete

from quart_app import attempts, db, jobs, lists, publisher, relay
from quart_app.app import create_app
from quart_app.celeryext import in_app_context
from quart_app.models import Job

_TASK = "bench.tasks.nothing"


def figures(database_urls: Sequence[str], times: int) -> Sequence[Mapping[str, float]]:
    """Milliseconds of a call, by verb, for each database: the median of so many."""
    apps = [create_app({"DATABASE_URL": url}) for url in database_urls]
    found: list[dict[str, list[float]]] = [{} for _ in apps]
    for _ in range(times):
        for app, took in zip(apps, found, strict=True):
            in_app_context(app, partial(_turn, took))
    for app in apps:
        app.extensions["publisher"].close()
    return [{verb: median(each) for verb, each in took.items()} for took in found]


def _turn(took: dict[str, list[float]]) -> None:
    """The life of one job, which leaves nothing."""

    def in_transaction(name: str, verb: Callable[..., Any], *args: Any) -> Any:
        with _timed(took, name), db.session() as session:
            return verb(session, *args)

    job = in_transaction("submit", jobs.submit, _TASK)
    claimed = in_transaction("claim", attempts.claim, job.id, _TASK, "bench", 60)
    in_transaction("finish", attempts.succeed, job.id, claimed.attempt, None)
    in_transaction("list", lists.page, lists.Filters())
    with _timed(took, "relay"):
        relay.tick(db.get(), publisher.get())
    with db.session() as session:
        session.execute(delete(Job).where(Job.id == job.id))


@contextmanager
def _timed(took: dict[str, list[float]], name: str) -> Iterator[None]:
    """Adds the milliseconds of its block to those of the name."""
    began = time.perf_counter()
    yield
    took.setdefault(name, []).append((time.perf_counter() - began) * 1000)
