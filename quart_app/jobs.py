"""The ledger of jobs: submit, cancel and retry; every way to the broker begins here."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, case, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from quart_app import actors, audit, db, depths, events, newjobs, publisher, traces
from quart_app.errors import Conflict, NotFound
from quart_app.models import Event, Job, JobState
from quart_app.newjobs import NewJob, task_named

__all__ = [
    "NewJob", "adopt", "again", "cancel", "get", "made_from", "move", "move_many", "over", "retry",
    "retry_with", "submit", "submit_many", "task_named",
]  # fmt: skip

WAITING = (JobState.SCHEDULED, JobState.QUEUED, JobState.RETRYING)
RETRYABLE = (JobState.FAILED, JobState.CANCELLED)
KEY_HOURS = 24

_TABLE = cast("Table", Job.__table__)
_Row = tuple[Job, NewJob]


def submit(session: Session, /, task: str, **options: Any) -> Job:
    """Accepts a job within the caller's transaction: it exists if and only if that commits.

    `options` are the other fields of NewJob. A live job of the same task and unique_key is
    returned instead, with `duplicate` set. Raises Denied, NotFound, Invalid, Full or Conflict.
    """
    return submit_many(session, [NewJob(task=task, **options)])[0]


def submit_many(session: Session, wanted: Sequence[NewJob]) -> list[Job]:
    """As `submit`, for all of them or none."""
    several = len(wanted) > 1
    with traces.submitting() as tell:
        rows = [
            (newjobs.row(new, f"jobs.{index}.task: " if several else ""), new)
            for index, new in enumerate(wanted)
        ]
        accepted = insert_rows(session, rows)
        tell(accepted)
    return accepted


def insert_rows(session: Session, rows: Sequence[_Row]) -> list[Job]:
    """As `submit_many`, for rows that were checked already."""
    at = session.scalars(select(db.now())).one()
    for job, new in rows:
        newjobs.start(job, new, at)
    if any(new.has_key for _, new in rows):
        accepted = _insert_keyed(session, rows, at)
    else:
        accepted = [job for job, _ in rows]
        _insert(session, accepted, at)
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
    job = newjobs.row(new)
    newjobs.start(job, new, at)
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
    # MySQL cannot even compare the column with other letters, and overlooks spaces at the end.
    job = session.get(Job, job_id) if job_id.isascii() else None
    if job is None or job.id != job_id:
        raise NotFound(f"There is no job {job_id}.")
    return job


def cancel(session: Session, job_id: str) -> Job:
    """Final for a waiting job; a running one is asked to stop; Conflict when it has ended."""
    actors.check(get(session, job_id).task)
    moved = move(session, job_id, JobState.CANCELLED, from_=WAITING, **over())
    if moved:
        depths.forget(moved.queue)
    elif not _ask_to_stop(session, job_id):
        raise Conflict(f"The job has {get(session, job_id).state} already.")
    job = moved or get(session, job_id)
    audit.record(session, "job.cancel", job.id, task=job.task)
    return job


def retry(session: Session, job_id: str) -> Job:
    """The same job again, now, its events going on; Conflict unless it failed or was cancelled."""
    job = get(session, job_id)
    actors.check(job.task)
    key = job.unique_key and newjobs.digest(job.task, job.unique_key)
    try:
        with session.begin_nested():
            moved = move(session, job_id, JobState.QUEUED, from_=RETRYABLE, live_key=key, **again())
    except IntegrityError:
        raise _key_is_taken(job) from None
    if moved is None:
        raise Conflict(f"Only a failed or cancelled job can be retried; this one is {job.state}.")
    audit.record(session, "job.retry", moved.id, task=moved.task)
    publisher.ring(session, moved)
    return moved


def retry_with(
    session: Session,
    job_id: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    keys: Mapping[str, Any],
) -> Job:
    """A new job made from one that has ended, linked to it; what is None stays as it was.

    `keys` are the fields of NewJob that tell a repeated request.
    Conflict while the old one is live.
    """
    old = get(session, job_id)
    if old.state not in events.TERMINAL:
        raise Conflict(f"Only a job that has ended can be run anew; this one is {old.state}.")
    new = NewJob(
        task=old.task, queue=old.queue, priority=old.priority, unique_key=old.unique_key,
        args=old.args if args is None else args, kwargs=old.kwargs if kwargs is None else kwargs,
        retry_of=old.id, **keys,
    )  # fmt: skip
    (job,) = submit_many(session, [new])
    if job.duplicate:
        raise _key_is_taken(old)
    return job


def made_from(session: Session, job_id: str, most: int = 20) -> Sequence[str]:
    """The ids of the newest jobs that were made from this one."""
    made = select(Job.id).where(Job.retry_of == job_id).order_by(Job.accepted_at.desc())
    return session.scalars(made.limit(most)).all()


def move(
    session: Session,
    job_id: str,
    to: JobState,
    *conditions: ColumnElement[bool],
    from_: Sequence[JobState],
    said: Mapping[str, Any] | None = None,
    of: Sequence[InstrumentedAttribute[Any]] = (),
    **changes: Any,
) -> Job | None:
    """Moves a job to a state and records it, `said` going into the event too.

    Of the job are loaded all columns, or those `of` it that the caller needs: each costs time.

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
    if of:
        fresh = fresh.options(load_only(*of, Job.state, Job.attempt, Job.last_seq))
    job, at = session.execute(fresh, execution_options={"populate_existing": True}).one()
    events.record(session, [_state_event(job, at, said)])
    return job


def move_many(
    session: Session,
    job_ids: Sequence[str],
    to: JobState,
    *conditions: ColumnElement[bool],
    from_: Sequence[JobState],
    **changes: Any,
) -> Sequence[Job]:
    """As `move`, in few statements; those that were moved, oldest first, and of them the least."""
    allowed = (Job.id.in_(job_ids), Job.state.in_(from_), *conditions)
    # Locked in the order of their ids, so that two who do this wait and do not deadlock.
    held = session.scalars(select(Job.id).where(*allowed).order_by(Job.id).with_for_update()).all()
    changes |= {"state": to, "last_seq": Job.last_seq + 1}
    moving = update(Job).where(Job.id.in_(held)).values(changes)
    session.execute(moving.execution_options(synchronize_session=False))
    parts = (Job.id, Job.task, Job.queue, Job.priority, Job.state, Job.attempt, Job.last_seq)
    fresh = select(Job).options(load_only(*parts)).where(Job.id.in_(held))
    moved = session.scalars(fresh.order_by(Job.accepted_at, Job.id)).all()
    at = session.scalars(select(db.now())).one()
    events.record(session, [_state_event(job, at) for job in moved])
    return moved


def over() -> Mapping[str, Any]:
    """What changes with a job that is cancelled before it runs."""
    return {"finished_at": db.now(), "live_key": None, "cancel_requested": True}


def again() -> Mapping[str, Any]:
    """What changes with a job that is queued once more."""
    one_more = case((Job.max_attempts > Job.attempt, Job.max_attempts), else_=Job.attempt + 1)
    return {
        "available_at": db.now(), "published_at": None, "finished_at": None, "rings": 0,
        "losses": 0, "cancel_requested": False, "max_attempts": one_more,
    }  # fmt: skip


def _key_is_taken(job: Job) -> Conflict:
    return Conflict(f"Another job with the unique_key {job.unique_key!r} is live.")


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
    names = [column.name for column in _TABLE.columns]
    known = ({name: vars(job)[name] for name in names if name in vars(job)} for job in rows)
    session.execute(insert(_TABLE), list(known))
    _accepted(session, rows, at)


def _accepted(session: Session, rows: Sequence[Job], at: datetime) -> None:
    events.record(session, [_state_event(job, at) for job in rows])
    for job in rows:
        if job.state is JobState.QUEUED:
            publisher.ring(session, job)


def _insert_keyed(session: Session, rows: Sequence[_Row], at: datetime) -> list[Job]:
    """Nearly all keys are new ones: those at once, and one by one what would repeat another job."""
    taken = _taken(session, rows)
    fresh = []
    for job, _ in rows:
        if taken.isdisjoint(keys := _keys(job)):
            fresh.append(job)
            taken |= keys
    try:
        with session.begin_nested():
            _insert(session, fresh, at)
    except IntegrityError:  # someone else's transaction was first with one of them
        fresh = []
    is_in = set(map(id, fresh))
    return [job if id(job) in is_in else _keyed(session, job, new, at) for job, new in rows]


def _taken(session: Session, rows: Sequence[_Row]) -> set[str]:
    """Those of the rows' keys that there is a job for."""
    keys = set[str]().union(*(_keys(job) for job, _ in rows))
    known = select(Job.idempotency_key, Job.live_key).where(
        or_(Job.idempotency_key.in_(keys), Job.live_key.in_(keys))
    )
    return {key for found in session.execute(known) for key in found if key} if keys else set()


def _keys(job: Job) -> set[str]:
    return {key for key in (job.idempotency_key, job.live_key) if key}


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
