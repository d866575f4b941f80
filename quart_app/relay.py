"""The relay: brings on what is due, gives lost jobs back, and rings doorbells that went unheard.

It may run in any number of processes at once, since each step is a conditional update.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta

from quart import Quart, current_app
from sqlalchemy import Row, bindparam, func, select, update
from sqlalchemy.orm import Session

from quart_app import db, jobs, lifelines, nodes, publisher, rescue
from quart_app.brokers import Waiting
from quart_app.celeryext import in_app_context
from quart_app.doorbell import Ring
from quart_app.models import Job, JobState
from quart_app.publisher import Publisher
from quart_app.seldom import Seldom
from quart_app.serving import while_serving
from quart_app.sight import Sight

_MOST_A_TICK = 200
_MOST_RINGS = 500
#: Doorbells that were rung and may be lost, of one queue: more than can wait for it.
_MOST_SUSPECTS = 2_000
#: Seconds a commit's own doorbell has before the relay rings.
_GRACE = 1.0
#: Seconds after which an unheard doorbell is rung again, doubled each time.
_UNHEARD = 3.0
_LONGEST_WAIT = 60.0
_EVERY = 0.5
_SOON = 0.1

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> None:
    """Has every serving process relay, in a thread of its own."""
    app.extensions["sight"] = Sight(app.config["JOB_LEASE"])

    @while_serving(app)
    async def serving() -> AsyncGenerator[None, None]:
        relay = Relay(app)
        relay.start()
        yield
        await asyncio.to_thread(relay.stop)


class Relay(threading.Thread):
    """Looks twice a second, and again soon while there is more than one look takes in."""

    def __init__(self, app: Quart) -> None:
        super().__init__(name="relay", daemon=True)
        self._app = app
        self._stopped = threading.Event()

    def run(self) -> None:
        pause, warnings = _EVERY, Seldom()
        while not self._stopped.wait(pause):
            try:
                pause = in_app_context(self._app, self._pause_after_tick)
            except Exception as error:
                # The database may be back at the next look.
                warnings.warn(logger, "The relay could not look", error)
                pause = 4 * _EVERY

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=5)

    def _pause_after_tick(self) -> float:
        return pause_after(tick(db.get(), publisher.get()), _EVERY)


def tick(database: db.Database, broker: Publisher) -> int:
    """Does what is to be done now; how many jobs it touched. Called within an app context."""
    lost = see_to_ended_nodes(database)
    with database.session(reading=True) as session:
        due, queues = _due(session), list(_queues(session))
        silent = rescue.silent(session, _MOST_A_TICK) if _sees_clearly(session) else []
    if due or silent:
        with database.session() as session:
            _bring_on(session, due)
            for job_id in silent:
                rescue.give_back(session, job_id)
    return lost + len(due) + len(silent) + _ring_unheard(database, broker, queues)


def pause_after(touched: int, usual: float) -> float:
    """Seconds until the next tick: few where there may be more to do than one takes in."""
    return _SOON if touched >= _MOST_A_TICK else usual


def _sees_clearly(session: Session) -> bool:
    sight: Sight = current_app.extensions["sight"]
    return sight.is_clear(time.monotonic(), db.clock(session))


def see_to_ended_nodes(database: db.Database) -> int:
    """Gives back at once what the nodes of this machine ran that have ended; how many jobs."""
    found = 0
    for boot in lifelines.ended(current_app.config["VAR_DIR"]):
        with database.session() as session:
            found += rescue.node_ended(session, boot)
            nodes.forget(session, boot)
    return found


def _due(session: Session) -> Sequence[str]:
    waiting = Job.state.in_((JobState.SCHEDULED, JobState.RETRYING))
    found = select(Job.id).where(waiting, Job.available_at <= db.now())
    return session.scalars(found.order_by(Job.available_at).limit(_MOST_A_TICK)).all()


def _bring_on(session: Session, due: Sequence[str]) -> None:
    waiting = (JobState.SCHEDULED, JobState.RETRYING)
    its_time = Job.available_at <= db.now()
    moved = jobs.move_many(
        session, due, JobState.QUEUED, its_time, from_=waiting, published_at=None
    )
    for job in moved:
        publisher.ring(session, job)


_FOLLOWING = select(func.min(Job.queue)).where(
    Job.state == JobState.QUEUED, Job.queue > bindparam("name")
)


def _queues(session: Session) -> Iterator[str]:
    """The queues with jobs in them, those that nobody listens to included.

    From one name to the next: DISTINCT would go through all that is queued.
    """
    name: str | None = ""
    while (name := session.scalar(_FOLLOWING, {"name": name})) is not None:
        yield name


def _ring_unheard(database: db.Database, broker: Publisher, queues: Sequence[str]) -> int:
    """Rings what was never rung or seems to be lost, as far as there is room for it."""
    try:
        waiting = broker.waiting(queues)
    except Exception:
        broker.was_away = True
        return 0  # as its own next publish will say: the jobs wait here
    if not waiting:
        return 0
    with database.session(reading=True) as session:
        unheard = list(_unheard(session, broker, waiting))
    rung = 0
    for start in range(0, len(unheard), _MOST_RINGS):  # a list without end no database takes
        with database.session() as session:
            rings = _take(session, unheard[start : start + _MOST_RINGS])
        taken = broker.push(rings)
        rung += len(taken or ())
        if left := set(rings).difference(taken or ()):
            with database.session() as session:
                _put_back(session, left)
        if taken is None:
            break
    return rung


# What the relay knows of a job: the arguments may be long, and are none of its business.
_CARD = (*publisher.NEEDED, Job.published_at, Job.rings)
_Card = Row[str, str, str, int, datetime | None, int]


def _unheard(
    session: Session, broker: Publisher, waiting: Mapping[str, Waiting]
) -> Iterator[_Card]:
    """Of each queue those that come first, so that no queue waits for another."""
    for queue, there in waiting.items():
        room = min(broker.most_doorbells - there.count, _MOST_RINGS)
        if room > 0:
            queued = (Job.queue == queue, Job.state == JobState.QUEUED)
            new = (*queued, Job.published_at.is_(None), Job.available_at < db.now(-_GRACE))
            unrung = select(*_CARD).where(*new).order_by(Job.priority, Job.available_at, Job.id)
            yield from _lost_doorbells(session, broker, queue, there)[:room]
            yield from session.execute(unrung.limit(room)).all()


def _lost_doorbells(session: Session, broker: Publisher, queue: str, there: Waiting) -> list[_Card]:
    at = db.clock(session)
    if broker.was_away:
        broker.was_away, broker.back_at = False, at
    heard = {key: _heard_until(session, jobs) for key, jobs in there.oldest.items()}
    rung = (Job.queue == queue, Job.state == JobState.QUEUED, Job.published_at < db.now(-_UNHEARD))
    suspects = select(*_CARD).where(*rung).order_by(Job.published_at).limit(_MOST_SUSPECTS)
    found = session.execute(suspects).all()
    lists = [broker.foundry.list_of(publisher.ring_for(job)) for job in found]
    return [
        job
        for job, key in zip(found, lists, strict=True)
        if _is_lost(job, heard.get(key, at), at, broker.back_at)
    ]


def _heard_until(session: Session, oldest: Sequence[str]) -> datetime | None:
    """When the oldest doorbell in a list was rung; None where that is not known."""
    waiting = (Job.id.in_(oldest), Job.state == JobState.QUEUED)
    return session.scalar(select(func.min(Job.published_at)).where(*waiting))


def _is_lost(job: _Card, oldest: datetime | None, at: datetime, back_at: datetime | None) -> bool:
    """Lists are first in, first out: what was rung long before the oldest in it is not there.

    Of what was rung before the broker was away nobody knows what it was heard by: that has not to
    wait ever longer.
    """
    patience = min(_UNHEARD * 2 ** max(job.rings - 1, 0), _LONGEST_WAIT)
    if oldest is None:
        oldest, patience = at, _LONGEST_WAIT
    elif back_at and job.published_at < back_at:
        patience = _UNHEARD
    return job.published_at < min(at, oldest) - timedelta(seconds=patience)


def _take(session: Session, found: Sequence[_Card]) -> list[Ring]:
    """Marks as rung those that no other relay has rung meanwhile."""
    rings = {job.id: job.rings for job in found}
    # Locked in the order of their ids, so that relays wait for each other and do not deadlock.
    locked = select(Job.id, Job.state, Job.rings).where(Job.id.in_(rings)).order_by(Job.id)
    mine = {
        job.id
        for job in session.execute(locked.with_for_update())
        if job.state is JobState.QUEUED and job.rings == rings[job.id]
    }
    marked = update(Job).where(Job.id.in_(sorted(mine)))
    marked = marked.values(published_at=db.now(), rings=Job.rings + 1)
    session.execute(marked.execution_options(synchronize_session=False))
    return [publisher.ring_for(job) for job in found if job.id in mine]


def _put_back(session: Session, rings: Set[Ring]) -> None:
    ids = sorted(ring.job_id for ring in rings)
    queued = update(Job).where(Job.id.in_(ids), Job.state == JobState.QUEUED)
    session.execute(queued.values(published_at=None, rings=Job.rings - 1))
