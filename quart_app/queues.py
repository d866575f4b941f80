"""The queues: what waits in each, who listens to it, and how fast jobs come and go."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from quart import current_app
from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from quart_app import db, nodes
from quart_app.events import TERMINAL
from quart_app.models import Job, JobState, Node

#: Minutes over which rates are counted.
MINUTES = 5
#: The states of jobs that have not ended.
LIVE = tuple(state for state in JobState if state not in TERMINAL)


@dataclass(frozen=True, slots=True)
class Line:
    """The jobs of one queue in one state."""

    count: int = 0
    #: Since when the one that has waited longest might have been taken; the time it waits for.
    since: datetime | None = None
    #: How many of them were published, and the same time of those that were not.
    published: int = 0
    unpublished_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Oldest:
    """The queued job that has waited longest, and for how many seconds."""

    id: str
    accepted_at: datetime
    age: float


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    lines: Mapping[JobState, Line]
    oldest: Oldest | None
    #: How many workers that are online listen to it.
    workers: int
    in_per_minute: float
    out_per_minute: float


def everyone(session: Session) -> list[Queue]:
    """Those that hold jobs, that workers listen to, or that CELERY_TASK_QUEUES names, by name."""
    at = db.clock(session)
    found, heard = lines(session), listeners(session)
    came, went = _came(session, at), _went(session, at)
    names = found.keys() | heard.keys() | current_app.config["CELERY_TASK_QUEUES"].keys()
    return [
        Queue(
            name, found[name], _oldest(session, name, found[name][JobState.QUEUED].since, at),
            heard[name], came[name] / MINUTES, went[name] / MINUTES,
        )
        for name in sorted(names)
    ]  # fmt: skip


def lines(session: Session) -> dict[str, dict[JobState, Line]]:
    """Of each queue, what has not ended, by state; read from one index alone."""
    unpublished = case((Job.published_at.is_(None), Job.available_at))
    figures = select(
        Job.queue, Job.state, func.count(), func.min(Job.available_at),
        func.count(Job.published_at), func.min(unpublished),
    )  # fmt: skip
    found: dict[str, dict[JobState, Line]] = defaultdict(lambda: defaultdict(Line))
    live = figures.where(Job.state.in_(LIVE)).group_by(Job.queue, Job.state)
    for queue, state, count, since, published, unpublished_since in session.execute(live):
        found[queue][state] = Line(count, since, published, unpublished_since)
    return found


def listeners(session: Session) -> Counter[str]:
    """How many workers that are online listen to each queue."""
    online = nodes.online(session, "worker")
    return Counter(queue for node in online for queue in consumed(node))


def consumed(node: Node) -> Sequence[str]:
    """Those that the worker listens to."""
    names: Sequence[str] = node.info.get("queues", ())
    return names


def _oldest(session: Session, queue: str, since: datetime | None, at: datetime) -> Oldest | None:
    if since is None:
        return None
    waiting = (Job.state == JobState.QUEUED, Job.available_at == since, Job.queue == queue)
    job = session.execute(select(Job.id, Job.accepted_at).where(*waiting).limit(1)).first()
    age = max(0.0, (at - since).total_seconds())
    return job and Oldest(job.id, job.accepted_at, age)


def _came(session: Session, at: datetime) -> Counter[str]:
    return _count(session, Job.accepted_at >= at - timedelta(minutes=MINUTES))


def _went(session: Session, at: datetime) -> Counter[str]:
    return _count(session, Job.finished_at >= at - timedelta(minutes=MINUTES))


def _count(session: Session, lately: ColumnElement[bool]) -> Counter[str]:
    """By queue; read from one index alone."""
    # As an expression, or SQLite would go through the whole of an index that begins with the queue.
    queue = Job.queue.concat("").label("name")
    counts = select(queue, func.count()).where(lately).group_by(queue)
    return Counter({name: count for name, count in session.execute(counts)})  # noqa: C416
