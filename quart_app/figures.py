"""The figures that operators watch, read from the tables: how things stand, and what has ended."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from quart_app import db, nodes, queues
from quart_app.models import Job, JobState, Schedule
from quart_app.queues import LIVE, Line

#: Seconds after which a due time that beat has not taken up is late: it looks every second.
LATE_AFTER = 5.0
_MOST_ENDED = 50_000
#: A transaction may commit so many seconds after the time that it wrote.
_OVERLAP = timedelta(seconds=5)

#: A job that ended: id, task, queue, state, available_at, started_at, finished_at.
EndedJob = Row[str, str, str, JobState, datetime, datetime | None, datetime]


@dataclass(frozen=True, slots=True)
class Figures:
    """How things stand at `at`."""

    at: datetime
    #: Jobs that have not ended, by task and state, and by queue and state.
    jobs: Mapping[tuple[str, JobState], int]
    lines: Mapping[str, Mapping[JobState, Line]]
    #: How many workers listen to each queue.
    listeners: Mapping[str, int]
    #: How many are online, by kind.
    nodes: Mapping[str, int]
    workers_starved: int
    #: How many messages each worker online has refused, by its name.
    messages_refused: Mapping[str, int]
    schedules_late: int

    def seconds_since(self, moment: datetime | None) -> float:
        return max(0.0, (self.at - moment).total_seconds()) if moment else 0.0

    def relay_lag(self, most_doorbells: int) -> float:
        """Seconds by which the relay is late, with what is due or with what there is room for."""
        late = [
            line.unpublished_since if state is JobState.QUEUED else line.since
            for lines in self.lines.values()
            for state, line in lines.items()
            if state is not JobState.RUNNING and line.published < most_doorbells
        ]
        return max(map(self.seconds_since, late), default=0.0)


def now(session: Session) -> Figures:
    at = db.clock(session)
    workers = nodes.online(session, "worker")
    late = (Schedule.paused.is_(False), Schedule.next_at < at - timedelta(seconds=LATE_AFTER))
    return Figures(
        at=at,
        jobs=_jobs(session),
        lines=queues.lines(session),
        listeners=queues.listeners(session),
        nodes={"worker": len(workers), "beat": len(nodes.online(session, "beat"))},
        workers_starved=sum(map(nodes.is_starved, workers)),
        messages_refused={node.name: int(node.info.get("refused", 0)) for node in workers},
        schedules_late=session.scalars(select(func.count()).where(*late)).one(),
    )


class Harvest:
    """Gathers each job that ended since this object was made, once; for one thread."""

    def __init__(self) -> None:
        self._made = time.monotonic()
        self._begun: datetime | None = None
        self._since: datetime
        self._known: set[tuple[str, datetime]] = set()

    def take(self, session: Session) -> list[EndedJob]:
        """Those that were not gathered yet, oldest first; of very many the rest comes next time."""
        if self._begun is None:
            at = db.clock(session)
            self._begun = self._since = at - timedelta(seconds=time.monotonic() - self._made)
        found = _ended(session, max(self._begun, self._since - _OVERLAP))
        fresh = [job for job in found if (job.id, job.finished_at) not in self._known]
        if found:
            self._since = found[-1].finished_at
        again = self._since - _OVERLAP
        self._known = {(job.id, job.finished_at) for job in found if job.finished_at >= again}
        return fresh


def _jobs(session: Session) -> dict[tuple[str, JobState], int]:
    counts = select(Job.task, Job.state, func.count()).where(Job.state.in_(LIVE))
    found = session.execute(counts.group_by(Job.task, Job.state))
    return {(task, state): count for task, state, count in found}


def _ended(session: Session, since: datetime) -> Sequence[EndedJob]:
    card = select(
        Job.id, Job.task, Job.queue, Job.state, Job.available_at, Job.started_at, Job.finished_at
    )
    ended = card.where(Job.finished_at >= since).order_by(Job.finished_at).limit(_MOST_ENDED)
    return session.execute(ended).all()  # type: ignore[return-value]  # they have their time
