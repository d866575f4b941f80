"""How checked jobs come into the ledger: many by one statement, and each key once."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, cast

import sqlalchemy
from sqlalchemy import Table, delete, select, union_all, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from quart_app import db, depths, events, newjobs, publisher
from quart_app.errors import Conflict
from quart_app.models import Job, JobState, Repeat
from quart_app.newjobs import NewJob

KEY_HOURS = 24

_TABLE = cast("Table", Job.__table__)
#: As `newjobs.row` makes it, with what was asked for.
Row = tuple[Job, NewJob]


class _Answered(Exception):
    """An Idempotency-Key has just gone into the other of the two tables that keep them."""


#: Someone else's transaction was first with one of the keys.
_TOO_LATE = (IntegrityError, _Answered)


def insert(session: Session, rows: Sequence[Row]) -> list[Job]:
    """Accepts all or none of them; what a key was given to before is returned in its place.

    Raises Full or Conflict.
    """
    at = db.clock(session)
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
        if job.accepted_at == at and depths.counts(job, at) and not (job.schedule_id and job.eta)
    )
    for queue, count in Counter(job.queue for job in fresh).items():
        depths.refuse_if_full(session, queue, count)
    return accepted


def _insert(session: Session, rows: Sequence[Job], at: datetime) -> None:
    """All in one statement: one for each of many would take far longer."""
    if not rows:
        return
    known = [vars(job) for job in rows]
    # Without the columns that none of them fills, which take NULL: a driver writes out each value.
    names = [
        column.name
        for column in _TABLE.columns
        if any(values.get(column.name) is not None for values in known)
    ]
    session.execute(
        sqlalchemy.insert(_TABLE), [{name: values.get(name) for name in names} for values in known]
    )
    _accepted(session, rows, at)


def _accepted(session: Session, rows: Sequence[Job], at: datetime) -> None:
    events.record(session, [events.of_state(job, at) for job in rows])
    for job in rows:
        if job.state is JobState.QUEUED:
            publisher.ring(session, job)


def _insert_keyed(session: Session, rows: Sequence[Row], at: datetime) -> list[Job]:
    """Nearly all keys are new ones: those at once, and one by one what would repeat another job."""
    taken = _taken(session, rows)
    fresh = []
    for job, _ in rows:
        if taken.isdisjoint(keys := _keys(job)):
            fresh.append(job)
            taken |= keys
    try:
        with session.begin_nested():
            _insert_alone(session, fresh, at)
    except _TOO_LATE:
        fresh = []
    is_in = set(map(id, fresh))
    return [job if id(job) in is_in else _keyed(session, job, at) for job, _ in rows]


def _taken(session: Session, rows: Sequence[Row]) -> set[str]:
    """Those of the rows' keys that there is a job for."""
    if not (keys := set[str]().union(*(_keys(job) for job, _ in rows))):
        return set()
    columns = (Job.idempotency_key, Job.live_key, Repeat.idempotency_key)
    known = union_all(*(select(column).where(column.in_(keys)) for column in columns))
    return set(session.scalars(known))


def _keys(job: Job) -> set[str]:
    return {key for key in (job.idempotency_key, job.live_key) if key}


def _keyed(session: Session, job: Job, at: datetime) -> Job:
    """The job, or the one that its key was given to before."""
    with suppress(*_TOO_LATE), session.begin_nested():
        return _existing(session, job, at) or _added(session, job, at)
    return _existing(session, job, at) or _added(session, job, at)


def _added(session: Session, job: Job, at: datetime) -> Job:
    _insert_alone(session, [job], at)
    return job


def _insert_alone(session: Session, rows: Sequence[Job], at: datetime) -> None:
    _insert(session, rows, at)
    keys = [job.idempotency_key for job in rows if job.idempotency_key]
    _check_alone(session, Repeat.idempotency_key, keys)


def _check_alone(session: Session, other: InstrumentedAttribute[Any], keys: Sequence[str]) -> None:
    """Looks for keys, that went into one of the two tables, in the other.

    Of two at once that put one key into a table each, one waits here for the end of the other.
    """
    if keys and session.scalar(select(other).where(other.in_(keys)).with_for_update(read=True)):
        raise _Answered


def _existing(session: Session, new: Job, at: datetime) -> Job | None:
    """The job that this one would repeat, by its idempotency key or its unique key."""
    # The live one is held first: who sees that it has ended also sees whose keys it was given to.
    live = _live(session, new) if new.live_key else None
    if new.idempotency_key and (job := _repeated(session, new, at)):
        return job
    if live:
        live.duplicate = True
    if live and new.idempotency_key:
        keys = {name: getattr(new, name) for name in ("idempotency_key", "idempotency_body")}
        session.execute(sqlalchemy.insert(Repeat).values(job_id=live.id, accepted_at=at, **keys))
        _check_alone(session, Job.idempotency_key, [new.idempotency_key])
    return live


def _live(session: Session, new: Job) -> Job | None:
    live = session.scalar(select(Job).where(Job.live_key == new.live_key))
    if live and new.idempotency_key:
        # Held by its id, as all who change it do: by its key, this would deadlock with them.
        session.refresh(live, with_for_update={"read": True})
    return live if live and live.live_key else None


def _repeated(session: Session, new: Job, at: datetime) -> Job | None:
    # Read first: an UPDATE by each of many with the same key would deadlock them on MySQL.
    kept = _first_with(session, new.idempotency_key)
    if kept is None or kept.accepted_at < at - timedelta(hours=KEY_HOURS):
        if kept:
            _forget(session, kept)
        return None
    if kept.idempotency_body != new.idempotency_body:
        raise Conflict("This Idempotency-Key came with another body before.")
    if isinstance(kept, Job):
        return kept
    job = session.get_one(Job, kept.job_id)
    job.duplicate = True
    return job


def _first_with(session: Session, key: str | None) -> Job | Repeat | None:
    job = session.scalar(select(Job).where(Job.idempotency_key == key))
    return job or session.scalar(select(Repeat).where(Repeat.idempotency_key == key))


def _forget(session: Session, kept: Job | Repeat) -> None:
    if isinstance(kept, Job):
        old = update(Job).where(Job.id == kept.id, Job.idempotency_key == kept.idempotency_key)
        session.execute(old.values(idempotency_key=None))
    else:
        same = (Repeat.idempotency_key == kept.idempotency_key, Repeat.job_id == kept.job_id)
        session.execute(delete(Repeat).where(*same))
