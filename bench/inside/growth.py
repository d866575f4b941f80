"""What each verb of the ledger takes, one after the other, in one database."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import delete

from asgi import app
from quart_app import attempts, db, jobs, publisher, relay
from quart_app.celeryext import in_app_context
from quart_app.models import Job

_TASK = "bench.tasks.nothing"


def figures(times: int) -> Mapping[str, Sequence[float]]:
    """Milliseconds of each call, by verb."""
    found: dict[str, list[float]] = {
        name: [] for name in ("submit", "claim", "finish", "list", "relay")
    }
    for _ in range(times):
        in_app_context(app, partial(_turn, found))
    app.extensions["publisher"].close()
    return found


def _turn(found: dict[str, list[float]]) -> None:
    job = _timed(found["submit"], jobs.submit, _TASK)
    claimed = _timed(found["claim"], attempts.claim, job.id, _TASK, "bench", 60)
    _timed(found["finish"], attempts.succeed, job.id, claimed.attempt, None)
    _timed(found["list"], jobs.search)
    began = time.perf_counter()
    relay.tick(db.get(), publisher.get())
    found["relay"].append((time.perf_counter() - began) * 1000)
    with db.session() as session:
        session.execute(delete(Job).where(Job.id == job.id))


def _timed(into: list[float], verb: Callable[..., Any], *args: Any) -> Any:
    """In a transaction of its own, as everywhere."""
    began = time.perf_counter()
    with db.session() as session:
        result = verb(session, *args)
    into.append((time.perf_counter() - began) * 1000)
    return result
