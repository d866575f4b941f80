"""The ledger of jobs: submit, find, cancel and retry; every way to the broker begins here."""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    case,
    func,
    insert,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from quart_app import actors, audit, db, depths, events, newjobs, publisher, traces
from quart_app.errors import Conflict, NotFound
from quart_app.models import Event, Job, JobState
from quart_app.newjobs import NewJob, task_named

__all__ = [
    "NewJob", "adopt", "cancel", "get", "move", "retry", "search", "submit", "submit_many",
    "task_named",
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
        wanted.append(_says(text))
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
    actors.check(get(session, job_id).task)
    moved = move(session, job_id, JobState.CANCELLED, from_=WAITING, **over)
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
    audit.record(session, "job.retry", moved.id, task=moved.task)
    publisher.ring(session, moved)
    return moved


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


def _says(text: str) -> ColumnElement[bool]:
    """Whether the arguments or the error contain the text, in whatever case."""
    as_json = json.dumps(text, ensure_ascii=False)[1:-1]
    sought = {Job.args: as_json, Job.kwargs: as_json, Job.error: text}
    return or_(
        *(
            func.lower(type_coerce(part, Text)).contains(words.lower(), autoescape=True)
            for part, words in sought.items()
        )
    )


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
