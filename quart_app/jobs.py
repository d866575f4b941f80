"""The ledger of jobs: submit, find, cancel and retry; every way to the broker begins here."""

import hashlib
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import uuid_utils
from quart import current_app
from sqlalchemy import ColumnElement, case, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quart_app import db, events, publisher
from quart_app.errors import Conflict, Full, Invalid, NotFound
from quart_app.models import Event, Job, JobState

WAITING = (JobState.SCHEDULED, JobState.QUEUED, JobState.RETRYING)
RETRYABLE = (JobState.FAILED, JobState.CANCELLED)
KEY_HOURS = 24
_QUEUE_NAME = re.compile(r"[\w.:-]{1,100}")


class Task(Protocol):
    """What the ledger asks of a registered task."""

    name: str
    queue: str | None
    max_attempts: int

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], Any]:
        """The arguments as they are to be stored; raises Invalid naming the wrong one."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a caller asks for: `delay` in seconds or `eta`, an aware datetime, but not both."""

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    priority: int = 0
    delay: float | None = None
    eta: datetime | None = None
    unique_key: str | None = None
    #: Digests of the caller with its Idempotency-Key, and of the request's body.
    idempotency_key: str | None = None
    idempotency_body: str | None = None
    schedule_id: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


def submit(session: Session, /, task: str, **options: Any) -> Job:
    """Accepts a job within the caller's transaction: it exists if and only if that commits.

    `options` are the other fields of NewJob. A live job of the same task and unique_key is
    returned instead, with `duplicate` set. Raises NotFound, Invalid, Full or Conflict.
    """
    return submit_many(session, [NewJob(task=task, **options)])[0]


def submit_many(session: Session, wanted: Sequence[NewJob]) -> list[Job]:
    """As `submit`, for all of them or none."""
    at = session.scalars(select(db.now())).one()
    accepted = [_existing(session, new, at) or _accept(session, new, at) for new in wanted]
    _refuse_if_full(session, {job.queue for job in accepted})
    return accepted


def adopt(session: Session, job_id: str, new: NewJob) -> bool:
    """Makes the row of a message that another Celery client sent; False when there is one."""
    if session.get(Job, job_id) is not None:
        return False
    at = session.scalars(select(db.now())).one()
    job = _row(new, at)
    job.id = str(uuid.UUID(job_id))
    job.published_at = at
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        return False
    events.record(session, [_state_event(job, at)])
    return True


def task_named(name: str) -> Task:
    found: Task | None = current_app.extensions["celery"].tasks.get(name)
    if found is None or not hasattr(found, "check"):
        raise NotFound(f"There is no task {name!r}; GET /api/tasks lists them.")
    return found


def get(session: Session, job_id: str) -> Job:
    """Raises NotFound for an unknown id: nothing is ever merely presumed to be waiting."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


def search(
    session: Session,
    *,
    state: JobState | None = None,
    task: str | None = None,
    queue: str | None = None,
    text: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: str | None = None,
    limit: int = 50,
) -> list[Job]:
    """The newest jobs first; `before` is the id after which the last page ended."""
    wanted: list[ColumnElement[bool]] = []
    exact = {Job.state: state, Job.task: task, Job.queue: queue}
    wanted += [column == value for column, value in exact.items() if value is not None]
    if text:
        within = (Job.args, Job.kwargs, Job.error)
        wanted.append(
            or_(*(func.lower(part).contains(text.lower(), autoescape=True) for part in within))
        )
    if since:
        wanted.append(Job.accepted_at >= since)
    if until:
        wanted.append(Job.accepted_at <= until)
    if before:
        wanted.append(Job.id < before)
    return list(session.scalars(select(Job).where(*wanted).order_by(Job.id.desc()).limit(limit)))


def cancel(session: Session, job_id: str) -> Job:
    """Final for a waiting job; a running one is asked to stop; Conflict when it has ended."""
    over: dict[str, Any] = {"finished_at": db.now(), "live_key": None, "cancel_requested": True}
    if job := move(session, job_id, JobState.CANCELLED, from_=WAITING, **over):
        return job
    asked = update(Job).where(Job.id == job_id, Job.state == JobState.RUNNING)
    if session.execute(asked.values(cancel_requested=True)).rowcount:  # type: ignore[attr-defined]
        return get(session, job_id)
    raise Conflict(f"The job has {get(session, job_id).state} already.")


def retry(session: Session, job_id: str) -> Job:
    """The same job again, now, its events going on; Conflict unless it failed or was cancelled."""
    job = get(session, job_id)
    again: dict[str, Any] = {
        "available_at": db.now(),
        "published_at": None,
        "finished_at": None,
        "rings": 0,
        "losses": 0,
        "cancel_requested": False,
        "live_key": job.unique_key and _digest(job.task, job.unique_key),
        "max_attempts": case(
            (Job.max_attempts > Job.attempt, Job.max_attempts), else_=Job.attempt + 1
        ),
    }
    try:
        with session.begin_nested():
            moved = move(session, job_id, JobState.QUEUED, from_=RETRYABLE, **again)
    except IntegrityError:
        raise Conflict(f"Another job with the unique_key {job.unique_key!r} is live.") from None
    if moved is None:
        raise Conflict(f"Only a failed or cancelled job can be retried; this one is {job.state}.")
    publisher.ring(session, moved)
    return moved


def move(
    session: Session,
    job_id: str,
    to: JobState,
    *conditions: ColumnElement[bool],
    from_: Sequence[JobState],
    said: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Job | None:
    """Moves a job to a state and records it, `said` going into the event too.

    None when the job is not in one of the states `from_` or a condition does not hold; the row
    decides, so that any number of callers may try at once.
    """
    allowed = (Job.id == job_id, Job.state.in_(from_), *conditions)
    changes |= {"state": to, "last_seq": Job.last_seq + 1}
    moved = session.execute(
        update(Job).where(*allowed).values(changes).execution_options(synchronize_session=False)
    )
    if moved.rowcount == 0:  # type: ignore[attr-defined]
        return None
    fresh = select(Job, db.now()).where(Job.id == job_id)
    job, at = session.execute(fresh, execution_options={"populate_existing": True}).one().tuple()
    events.record(session, [_state_event(job, at, said)])
    return job


def _state_event(job: Job, at: datetime, said: Mapping[str, Any] | None = None) -> Event:
    data = {"state": job.state.value, "attempt": job.attempt, **(said or {})}
    return Event(job_id=job.id, seq=job.last_seq, at=at, type="state", data=data)


def _existing(session: Session, new: NewJob, at: datetime) -> Job | None:
    """The job that this one would repeat, by its idempotency key or its unique key."""
    if new.idempotency_key:
        _forget_old_key(session, new.idempotency_key, at)
        same = select(Job).where(Job.idempotency_key == new.idempotency_key)
        if job := session.scalar(same):
            if job.idempotency_body != new.idempotency_body:
                raise Conflict("This Idempotency-Key came with another body before.")
            return job
    if new.unique_key:
        live = select(Job).where(Job.live_key == _digest(new.task, new.unique_key))
        if job := session.scalar(live):
            job.duplicate = True
            return job
    return None


def _forget_old_key(session: Session, key: str, at: datetime) -> None:
    old = (Job.idempotency_key == key, Job.accepted_at < at - timedelta(hours=KEY_HOURS))
    session.execute(update(Job).where(*old).values(idempotency_key=None))


def _accept(session: Session, new: NewJob, at: datetime) -> Job:
    job = _row(new, at)
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        # Someone else's transaction was first with one of the unique keys.
        if found := _existing(session, new, at):
            return found
        raise
    events.record(session, [_state_event(job, at)])
    if job.state is JobState.QUEUED:
        publisher.ring(session, job)
    return job


def _row(new: NewJob, at: datetime) -> Job:
    task = task_named(new.task)
    args, kwargs = task.check(new.args, new.kwargs)
    _storable("args", args)
    _storable("kwargs", kwargs)
    available_at = _available_at(new, at)
    later = available_at > at
    return Job(
        id=str(uuid_utils.uuid7()),
        task=new.task,
        args=args,
        kwargs=kwargs,
        queue=_queue(new, task),
        priority=_within("priority", new.priority, 0, 9),
        state=JobState.SCHEDULED if later else JobState.QUEUED,
        attempt=0,
        max_attempts=task.max_attempts,
        last_seq=1,
        accepted_at=at,
        available_at=available_at,
        eta=new.eta or (available_at if later else None),
        unique_key=new.unique_key,
        live_key=_digest(new.task, new.unique_key) if new.unique_key else None,
        idempotency_key=new.idempotency_key,
        idempotency_body=new.idempotency_body,
        schedule_id=new.schedule_id,
        context=dict(new.context),
    )


def _available_at(new: NewJob, at: datetime) -> datetime:
    if new.delay is not None and new.eta is not None:
        raise Invalid("delay", "give delay or eta, not both")
    if new.eta is not None and new.eta.tzinfo is None:
        raise Invalid("eta", "expected a time with an offset, such as 2030-01-01T09:00:00+08:00")
    if new.eta is not None:
        return max(new.eta, at)
    return at + timedelta(seconds=_within("delay", new.delay or 0, 0, 10 * 366 * 86400))


def _storable(where: str, value: Any) -> None:
    """Raises Invalid, naming the place, for text or numbers that cannot be kept as they are."""
    if isinstance(value, str) and ("\0" in value or (not value.isprintable() and _broken(value))):
        raise Invalid(where, "expected text without NUL characters or lone surrogates")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(where, "expected a finite number")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _storable(where, key)
            _storable(f"{where}.{key}", inner)
    if isinstance(value, list):
        for index, inner in enumerate(value):
            _storable(f"{where}.{index}", inner)


def _broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _queue(new: NewJob, task: Task) -> str:
    name = new.queue or task.queue or current_app.extensions["celery"].conf.task_default_queue
    if not _QUEUE_NAME.fullmatch(name):
        raise Invalid("queue", "expected up to 100 letters, digits, dots, colons or dashes")
    return str(name)


def _within(field: str, value: float, low: int, high: int) -> Any:
    if not low <= value <= high:
        raise Invalid(field, f"expected a number from {low} to {high}")
    return value


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _refuse_if_full(session: Session, queues: set[str]) -> None:
    """Raises Full when a queue holds more waiting jobs than MAX_QUEUE_DEPTH."""
    most: int = current_app.config["MAX_QUEUE_DEPTH"]
    for queue in sorted(queues):
        waiting = select(Job.id).where(Job.queue == queue, Job.state == JobState.QUEUED)
        beyond = waiting.limit(1).offset(most)
        if session.scalar(beyond) is not None:
            raise Full(f"The queue {queue!r} holds {most} jobs already; try again later.")
