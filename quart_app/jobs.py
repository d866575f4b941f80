"""The ledger of jobs: submit, cancel and retry; every way to the broker begins here."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quart_app import db, depths, events, newjobs, publisher
from quart_app.errors import Conflict, NotFound
from quart_app.models import Event, Job, JobState
from quart_app.newjobs import NewJob, task_named

__all__ = [
    "NewJob", "adopt", "cancel", "get", "move", "retry", "submit", "submit_many", "task_named",
]  # fmt: skip

WAITING = (JobState.SCHEDULED, JobState.QUEUED, JobState.RETRYING)
RETRYABLE = (JobState.FAILED, JobState.CANCELLED)
KEY_HOURS = 24


def submit(session: Session, /, task: str, **options: Any) -> Job:
    """Accepts a job within the caller's transaction: it exists if and only if that commits.

    `options` are the other fields of NewJob. A live job of the same task and unique_key is
    returned instead, with `duplicate` set. Raises NotFound, Invalid, Full or Conflict.
    """
    return submit_many(session, [NewJob(task=task, **options)])[0]


def submit_many(session: Session, wanted: Sequence[NewJob]) -> list[Job]:
    """As `submit`, for all of them or none."""
    at = session.scalars(select(db.now())).one()
    rows = [(newjobs.row(new, at), new) for new in wanted]
    _insert(session, [job for job, new in rows if not new.has_key], at)
    accepted = [_keyed(session, job, new, at) if new.has_key else job for job, new in rows]
    # What a schedule makes at its time is never refused: nobody is there to try it again.
    fresh = (
        job
        for job in accepted
        if job.accepted_at == at
        and job.state is JobState.QUEUED
        and not (job.schedule_id and job.eta)
    )
    for queue, count in Counter(job.queue for job in fresh).items():
        depths.refuse_if_full(session, queue, count)
    return accepted


def adopt(session: Session, job_id: str, new: NewJob) -> bool:
    """Makes the row of a message that another Celery client sent; False when there is one."""
    if session.get(Job, job_id) is not None:
        return False
    at = session.scalars(select(db.now())).one()
    job = newjobs.row(new, at)
    job.id = str(uuid.UUID(job_id))
    job.published_at = at
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        return False
    events.record(session, [_state_event(job, at)])
    return True


def get(session: Session, job_id: str) -> Job:
    """Raises NotFound for an unknown id: nothing is ever merely presumed to be waiting."""
    # MySQL cannot even compare the column with other letters.
    job = session.get(Job, job_id) if job_id.isascii() else None
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


def cancel(session: Session, job_id: str) -> Job:
    """Final for a waiting job; a running one is asked to stop; Conflict when it has ended."""
    over: dict[str, Any] = {"finished_at": db.now(), "live_key": None, "cancel_requested": True}
    queue = get(session, job_id).queue
    if job := move(session, job_id, JobState.CANCELLED, from_=WAITING, **over):
        depths.forget(queue)
        return job
    if _ask_to_stop(session, job_id):
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
        "live_key": job.unique_key and newjobs.digest(job.task, job.unique_key),
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
    job, at = session.execute(fresh, execution_options={"populate_existing": True}).one()
    events.record(session, [_state_event(job, at, said)])
    return job


def _ask_to_stop(session: Session, job_id: str) -> bool:
    """Whether the job runs; that it was asked is a line of its log, the first time."""
    running = (Job.id == job_id, Job.state == JobState.RUNNING)
    asked = update(Job).where(*running, Job.cancel_requested.is_(False))
    asked = asked.values(cancel_requested=True, last_seq=Job.last_seq + 1)
    if session.execute(asked.execution_options(synchronize_session=False)).rowcount == 0:  # type: ignore[attr-defined]
        return session.scalar(select(Job.id).where(*running)) is not None
    seq, at = session.execute(select(Job.last_seq, db.now()).where(Job.id == job_id)).one()
    line = {"level": "warning", "message": "Asked to stop: the job was cancelled."}
    events.record(session, [Event(job_id=job_id, seq=seq, at=at, type="log", data=line)])
    session.expire_all()
    return True


def _state_event(job: Job, at: datetime, said: Mapping[str, Any] | None = None) -> Event:
    data = {"state": job.state.value, "attempt": job.attempt, **(said or {})}
    return Event(job_id=job.id, seq=job.last_seq, at=at, type="state", data=data)


def _insert(session: Session, rows: Sequence[Job], at: datetime) -> None:
    """All in one statement: one for each of many would take far longer."""
    if not rows:
        return
    columns = [column.key for column in inspect(Job).column_attrs]
    known = ({name: vars(job)[name] for name in columns if name in vars(job)} for job in rows)
    session.execute(insert(Job), list(known))
    _accepted(session, rows, at)


def _accepted(session: Session, rows: Sequence[Job], at: datetime) -> None:
    events.record(session, [_state_event(job, at) for job in rows])
    for job in rows:
        if job.state is JobState.QUEUED:
            publisher.ring(session, job)


def _keyed(session: Session, job: Job, new: NewJob, at: datetime) -> Job:
    """The job, or the one that its key was given to before."""
    if found := _existing(session, new, at):
        return found
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        # Someone else's transaction was first with one of the unique keys.
        if found := _existing(session, new, at):
            return found
        raise
    _accepted(session, [job], at)
    return job


def _existing(session: Session, new: NewJob, at: datetime) -> Job | None:
    """The job that this one would repeat, by its idempotency key or its unique key."""
    if new.idempotency_key and (job := _repeated(session, new, at)):
        return job
    if new.unique_key:
        live = select(Job).where(Job.live_key == newjobs.digest(new.task, new.unique_key))
        if job := session.scalar(live):
            job.duplicate = True
            return job
    return None


def _repeated(session: Session, new: NewJob, at: datetime) -> Job | None:
    # Read first: an UPDATE by each of many with the same key would deadlock them on MySQL.
    job = session.scalar(select(Job).where(Job.idempotency_key == new.idempotency_key))
    if job and job.accepted_at < at - timedelta(hours=KEY_HOURS):
        old = update(Job).where(Job.id == job.id, Job.idempotency_key == new.idempotency_key)
        session.execute(old.values(idempotency_key=None))
        return None
    if job and job.idempotency_body != new.idempotency_body:
        raise Conflict("This Idempotency-Key came with another body before.")
    return job
