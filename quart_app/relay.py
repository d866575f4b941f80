"""The relay: brings on what is due, gives lost jobs back, and rings doorbells that went unheard.

It may run in any number of processes at once, since each step is a conditional update.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from quart import Quart
from redis import RedisError
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from quart_app import db, jobs, publisher
from quart_app.celeryext import in_app_context
from quart_app.doorbell import Ring
from quart_app.models import Job, JobState
from quart_app.publisher import MOST_DOORBELLS, Publisher, Waiting

#: A job whose worker was lost this often is taken for what kills it.
MOST_LOSSES = 3
_MOST_A_TICK = 200
#: Seconds a commit's own doorbell has before the relay rings.
_GRACE = 1.0
#: Seconds after which an unheard doorbell is rung again, doubled each time.
_UNHEARD = 3.0
_LONGEST_WAIT = 60.0
_EVERY = 0.5

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> None:
    """Has every serving process relay, in a thread of its own."""
    thread: list[Relay] = []

    @app.before_serving
    async def start() -> None:
        thread.append(Relay(app))
        thread[-1].start()

    @app.after_serving
    async def stop() -> None:
        await asyncio.to_thread(thread.pop().stop)


class Relay(threading.Thread):
    """Looks twice a second, and again at once while there is something to do."""

    def __init__(self, app: Quart) -> None:
        super().__init__(name="relay", daemon=True)
        self._app = app
        self._stopped = threading.Event()

    def run(self) -> None:
        pause = _EVERY
        while not self._stopped.wait(pause):
            try:
                pause = in_app_context(self._app, self._pause_after_tick)
            except Exception as error:
                # The database may be back at the next look.
                logger.warning("The relay could not look: %s", type(error).__name__)
                pause = 4 * _EVERY

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=5)

    def _pause_after_tick(self) -> float:
        return _EVERY / 10 if tick(db.get(), publisher.get()) else _EVERY


def tick(database: db.Database, broker: Publisher) -> int:
    """Does what is to be done now; how many jobs it touched. Called within an app context."""
    with database.session(reading=True) as session:
        due, lost, unheard = _due(session), _lost(session), _unheard(session, broker)
    if not (due or lost or unheard):
        return 0
    with database.session() as session:
        for job_id in due:
            _bring_on(session, job_id)
        for job_id in lost:
            _give_back(session, job_id)
        rings = [ring for job in unheard if (ring := _take(session, job))]
    if rings and not broker.push(rings):
        with database.session() as session:
            _put_back(session, rings)
    return len(due) + len(lost) + len(rings)


def _due(session: Session) -> Sequence[str]:
    waiting = Job.state.in_((JobState.SCHEDULED, JobState.RETRYING))
    found = select(Job.id).where(waiting, Job.available_at <= db.now())
    return session.scalars(found.order_by(Job.available_at).limit(_MOST_A_TICK)).all()


def _bring_on(session: Session, job_id: str) -> None:
    come = Job.available_at <= db.now()
    waiting = (JobState.SCHEDULED, JobState.RETRYING)
    if job := jobs.move(session, job_id, JobState.QUEUED, come, from_=waiting, published_at=None):
        publisher.ring(session, job)


def _lost(session: Session) -> Sequence[str]:
    silent = select(Job.id).where(Job.state == JobState.RUNNING, Job.lease_until < db.now())
    return session.scalars(silent.order_by(Job.lease_until).limit(_MOST_A_TICK)).all()


def _give_back(session: Session, job_id: str) -> None:
    """A job whose worker fell silent: queued again, unless it was cancelled or is what kills."""
    job = jobs.get(session, job_id)
    silent = (Job.lease_until < db.now(), Job.attempt == job.attempt)
    lost = {"losses": Job.losses + 1, "lease_until": None}
    over = {"finished_at": db.now(), "live_key": None, **lost}
    why = f"worker {job.worker} was lost"
    if job.cancel_requested:
        to, changes = JobState.CANCELLED, over
    elif job.losses + 1 >= MOST_LOSSES:
        why = f"its worker was lost {MOST_LOSSES} times in a row"
        to, changes = JobState.FAILED, over
    else:
        to, changes = JobState.QUEUED, {"available_at": db.now(), "published_at": None, **lost}
    moved = jobs.move(
        session, job_id, to, *silent, from_=(JobState.RUNNING,), said={"error": why},
        error=why, rings=0, **changes,
    )  # fmt: skip
    if moved and to is JobState.QUEUED:
        publisher.ring(session, moved)


def _unheard(session: Session, broker: Publisher) -> list[Job]:
    """Queued jobs whose doorbell was never rung, or seems to be lost; as many as there is room."""
    found = select(Job).where(Job.state == JobState.QUEUED, Job.available_at < db.now(-_GRACE))
    candidates = session.scalars(found.order_by(Job.available_at).limit(MOST_DOORBELLS)).all()
    if not candidates:
        return []
    try:
        waiting = broker.waiting(sorted({job.queue for job in candidates}))
    except RedisError:
        return []
    at = session.scalars(select(db.now())).one()
    heard_until = _heard_until(session, waiting)
    return _as_room_allows(
        [job for job in candidates if _is_unheard(job, heard_until, at)], waiting
    )


def _heard_until(session: Session, waiting: Mapping[str, Waiting]) -> dict[str, datetime | None]:
    """Per queue, when its oldest waiting doorbell was rung: lists are first in, first out."""
    return {
        queue: session.scalar(select(Job.published_at).where(Job.id == there.oldest))
        for queue, there in waiting.items()
        if there.oldest
    }


def _is_unheard(job: Job, heard_until: Mapping[str, datetime | None], at: datetime) -> bool:
    if job.published_at is None:
        return True
    patience = min(_UNHEARD * 2 ** max(job.rings - 1, 0), _LONGEST_WAIT)
    oldest = heard_until.get(job.queue) or at
    return job.published_at < min(at, oldest) - timedelta(seconds=patience)


def _as_room_allows(unheard: list[Job], waiting: Mapping[str, Waiting]) -> list[Job]:
    room = {queue: MOST_DOORBELLS - there.count for queue, there in waiting.items()}
    chosen = []
    for job in unheard[:_MOST_A_TICK]:
        room[job.queue] = room.get(job.queue, MOST_DOORBELLS) - 1
        if room[job.queue] >= 0:
            chosen.append(job)
    return chosen


def _take(session: Session, job: Job) -> Ring | None:
    """Marks the doorbell as rung by this relay and no other."""
    same = (Job.id == job.id, Job.state == JobState.QUEUED, Job.rings == job.rings)
    marked = update(Job).where(*same).values(published_at=db.now(), rings=Job.rings + 1)
    done = session.execute(marked.execution_options(synchronize_session=False))
    return publisher.ring_for(job) if done.rowcount else None  # type: ignore[attr-defined]


def _put_back(session: Session, rings: Sequence[Ring]) -> None:
    ids = sorted(ring.job_id for ring in rings)
    queued = update(Job).where(Job.id.in_(ids), Job.state == JobState.QUEUED)
    session.execute(queued.values(published_at=None))
