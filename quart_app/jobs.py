"""The ledger of jobs: submit, cancel and retry; every way to the broker begins here."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, case, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, load_only

from quart_app import actors, audit, db, depths, events, intake, newjobs, publisher, traces
from quart_app.errors import Conflict, Denied, Invalid, NotFound
from quart_app.events import NewEvent
from quart_app.models import Job, JobState
from quart_app.moves import RETRYABLE, Move, column, tell
from quart_app.newjobs import NewJob, task_named

__all__ = [
    "RETRYABLE", "NewJob", "adopt", "again", "cancel", "get", "made_from", "move_many", "over",
    "retry", "retry_with", "submit", "submit_many", "task_named",
]  # fmt: skip

WAITING = (JobState.SCHEDULED, JobState.QUEUED, JobState.RETRYING)
#: What the last event of a job says that was cancelled before it ran, or ran again.
CANCELLED = {"error": "cancelled while it waited"}


def submit(session: Session, /, task: str, **options: Any) -> Job:
    """Accepts a job within the caller's transaction: it exists if and only if that commits.

    `options` are the other fields of NewJob. A live job of the same task and unique_key is
    returned instead, with `duplicate` set. Raises Denied, NotFound, Invalid, Full or Conflict.
    """
    return _submit(session, NewJob(task=task, **options))


def submit_many(session: Session, wanted: Sequence[NewJob]) -> list[Job]:
    """As `submit`, for all of them or none; what is wrong with one is told with its place."""
    with traces.submitting() as tell:
        rows = [(_row_at(place, new), new) for place, new in enumerate(wanted)]
        accepted = intake.insert(session, rows)
        tell(accepted)
    return accepted


def _submit(session: Session, new: NewJob) -> Job:
    with traces.submitting() as tell:
        (job,) = intake.insert(session, [(newjobs.row(new), new)])
        tell([job])
    return job


def _row_at(place: int, new: NewJob) -> Job:
    try:
        return newjobs.row(new)
    except Invalid as wrong:
        raise Invalid(f"jobs.{place}.{wrong.field}", wrong.detail) from None
    except Denied as problem:
        raise Denied(f"jobs.{place}.task: {problem}") from None
    except NotFound as problem:
        raise NotFound(f"jobs.{place}.task: {problem}") from None


def adopt(session: Session, job_id: str, new: NewJob) -> bool:
    """Makes the row of a message that another Celery client sent; False when there is one."""
    at = db.clock(session)
    job = newjobs.row(new)
    newjobs.start(job, new, at)
    job.id = str(uuid.UUID(job_id))
    job.published_at = at
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        return False
    events.record(session, [events.of_state(job, at)])
    return True


def get(session: Session, job_id: str) -> Job:
    """Raises NotFound for an unknown id: nothing is ever merely presumed to be waiting."""
    job = db.by_id(session, Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


def cancel(session: Session, job_id: str) -> Job:
    """Final for a waiting job; a running one is asked to stop; Conflict when it has ended."""
    actors.check(get(session, job_id).task)
    # Its worker may give it back, or postpone it, between the two questions: both once more then.
    job = _stop(session, job_id) or _stop(session, job_id)
    if job is None:
        raise Conflict(f"The job has ended already: {get(session, job_id).state}.")
    audit.record(session, "job.cancel", job.id, task=job.task)
    return job


def retry(session: Session, job_id: str) -> Job:
    """The same job again, now, its events going on; Conflict unless it failed or was cancelled."""
    job = get(session, job_id)
    actors.check(job.task)
    key = job.unique_key and newjobs.digest(job.task, job.unique_key)
    try:
        with session.begin_nested():
            moved = _QUEUE_AGAIN(session, job_id, live_key=key)
    except IntegrityError:
        raise _key_is_taken(job) from None
    if moved is None:
        raise Conflict(f"Only a failed or cancelled job can be retried; this one is {job.state}.")
    audit.record(session, "job.retry", job.id, task=job.task)
    publisher.ring(session, job)
    return job


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
    job = _submit(session, new)
    if job.duplicate:
        raise _key_is_taken(old)
    return job


def made_from(session: Session, job_id: str, most: int = 20) -> Sequence[str]:
    """The ids of the newest jobs that were made from this one."""
    made = select(Job.id).where(Job.retry_of == job_id).order_by(Job.accepted_at.desc())
    return session.scalars(made.limit(most)).all()


def move_many(
    session: Session,
    job_ids: Sequence[str],
    to: JobState,
    *conditions: ColumnElement[bool],
    from_: Sequence[JobState],
    said: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Sequence[Job]:
    """As a `Move`, of many in few statements; those moved, oldest first, and of them the least."""
    if not job_ids:
        return []
    # Locked by their ids alone and in their order, so that two who do this do not deadlock.
    these = Job.id.in_(job_ids)
    session.scalars(select(Job.id).where(these).order_by(Job.id).with_for_update()).all()
    held = session.scalars(select(Job.id).where(these, Job.state.in_(from_), *conditions)).all()
    changes |= {"state": to, "last_seq": Job.last_seq + 1}
    moving = update(Job).where(Job.id.in_(held)).values(changes)
    session.execute(moving.execution_options(synchronize_session=False))
    parts = (Job.id, Job.task, Job.queue, Job.priority, Job.state, Job.attempt, Job.last_seq)
    fresh = select(Job).options(load_only(*parts)).where(Job.id.in_(held))
    moved = session.scalars(fresh.order_by(Job.accepted_at, Job.id)).all()
    tell(session, moved, db.clock(session), said)
    return moved


def over() -> Mapping[str, Any]:
    """What changes with a job that is cancelled before it runs."""
    return {
        "finished_at": db.now(), "live_key": None, "cancel_requested": True,
        # What has ended is found by when it might begin: no later than it ended.
        "available_at": db.now(),
    }  # fmt: skip


def again() -> Mapping[str, Any]:
    """What changes with a job that is queued once more."""
    had, most = column.attempt, column.max_attempts
    one_more = case((most > had, most), else_=had + 1)
    return {
        "available_at": db.now(), "published_at": None, "finished_at": None, "rings": 0,
        "losses": 0, "cancel_requested": False, "max_attempts": one_more,
    }  # fmt: skip


#: Both read the job anew.
_CANCEL = Move(JobState.CANCELLED, from_=WAITING, of=(Job,), **over())
_QUEUE_AGAIN = Move(JobState.QUEUED, from_=RETRYABLE, of=(Job,), **again())


def _stop(session: Session, job_id: str) -> Job | None:
    """Cancels a job that waits, or asks one that runs to stop; None when it is in neither state."""
    if moved := _CANCEL(session, job_id, CANCELLED):
        depths.forget(moved.Job.queue)
        return cast("Job", moved.Job)
    return get(session, job_id) if _ask_to_stop(session, job_id) else None


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
    events.record(session, [NewEvent(job_id, seq, at, "log", line)])
    session.expire_all()
    return True
