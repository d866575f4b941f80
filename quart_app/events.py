"""What happened to a job: rows numbered 1, 2, 3 … per job, and the frames made of them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from sqlalchemy import Row, Table, insert, select
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.models import Event, Job, JobState

#: A JSON object: job, seq, at, type and what its type carries.
Frame = dict[str, Any]

_INSERT = insert(cast("Table", Event.__table__))
_COLUMNS = ("job_id", "seq", "at", "type", "data")
TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


def record(session: Session, rows: Sequence[Event]) -> None:
    """Stores the rows; their frames are announced when the transaction has been committed."""
    if not rows:
        return
    values = [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
    session.execute(_INSERT, values if len(values) > 1 else values[0])
    db.prove(session, partial(_is_there, row=rows[-1]))
    announce(session, [frame(row) for row in rows])


def of_state(job: Job | Row[Any], at: datetime, said: Mapping[str, Any] | None = None) -> Event:
    """That the job is in its state now; `said` goes into it too."""
    data = {"state": job.state.value, "attempt": job.attempt, **(said or {})}
    return Event(job_id=job.id, seq=job.last_seq, at=at, type="state", data=data)


def announce(session: Session, frames: Sequence[Frame]) -> None:
    session.info.setdefault("frames", []).extend(frames)


def since(session: Session, job_id: str, after: int = 0, limit: int | None = None) -> list[Frame]:
    """The stored frames of one job with a `seq` above `after`, in order."""
    found = select(Event).where(Event.job_id == job_id, Event.seq > after)
    return [frame(row) for row in session.scalars(found.order_by(Event.seq).limit(limit))]


def frame(row: Event) -> Frame:
    return {
        "job": row.job_id,
        "seq": row.seq,
        "at": timestamp(row.at),
        "type": row.type,
        **row.data,
    }


def progress_frame(job_id: str, progress: dict[str, Any]) -> Frame:
    """A snapshot: the newest always arrives, and it has no `seq` of its own."""
    at = timestamp(datetime.now(UTC))
    return {"job": job_id, "at": at, "type": "progress", **progress}


def is_last(frame: Frame) -> bool:
    return frame["type"] == "state" and frame["state"] in TERMINAL


def snapshot(session: Session, job_id: str) -> dict[str, Any] | None:
    """The newest stored progress: current, total, message."""
    return session.scalar(select(Job.progress).where(Job.id == job_id))


def timestamp(at: datetime) -> str:
    """ISO 8601 in UTC with microseconds: such texts sort by time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _is_there(session: Session, row: Event) -> bool:
    """Its time tells it from the one that somebody else wrote with the same seq."""
    same = (Event.job_id == row.job_id, Event.seq == row.seq, Event.at == row.at)
    return session.scalar(select(Event.seq).where(*same)) is not None
