"""How many jobs each queue holds, and the refusal of more than MAX_QUEUE_DEPTH."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from quart import current_app
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.errors import Full
from quart_app.models import Job, JobState

#: Seconds for which a count is taken for true.
_COUNT_AGAIN = 1.0
#: Seconds: what begins within them counts as waiting, so that a short delay is no way around.
_SOON = 60.0
_QUEUED = (Job.state == JobState.QUEUED,)
_DUE_SOON = (Job.state == JobState.SCHEDULED, Job.available_at <= db.now(_SOON))


@dataclass(frozen=True, slots=True)
class Depth:
    """How many jobs a queue holds, as far as this process knows, and until when that will do."""

    count: int
    until: float
    #: False once something was added that may yet be rolled back.
    exact: bool = True


def refuse_if_full(session: Session, queue: str, added: int) -> None:
    """Raises Full when a queue holds more jobs than MAX_QUEUE_DEPTH, the `added` ones among them.

    Counting takes long just when there is much: this process counts what it adds, and all the rest
    once a second.
    """
    most: int = current_app.config["MAX_QUEUE_DEPTH"]
    depths, now = _depths(), time.monotonic()
    depth = depths.get(queue)
    if depth is None or depth.until < now or (depth.count + added > most and not depth.exact):
        counted = sum(_count(session, queue, *which) for which in (_QUEUED, _DUE_SOON)) - added
        depth = depths[queue] = Depth(counted, now + _COUNT_AGAIN)
    if depth.count + added > most:
        raise Full(f"The queue {queue!r} holds {most} jobs already; try again later.")
    depths[queue] = Depth(depth.count + added, depth.until, exact=False)


def counts(job: Job, at: datetime) -> bool:
    """Whether a job that is accepted at this time waits in its queue, or soon will."""
    return job.available_at <= at + timedelta(seconds=_SOON)


def forget(queue: str) -> None:
    """Has the queue counted anew: this process took a job out of it."""
    _depths().pop(queue, None)


def _count(session: Session, queue: str, *which: ColumnElement[bool]) -> int:
    return session.scalars(select(func.count()).where(Job.queue == queue, *which)).one()


def _depths() -> dict[str, Depth]:
    depths: dict[str, Depth] = current_app.extensions.setdefault("queue_depths", {})
    return depths
