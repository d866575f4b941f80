"""What happened to a job: rows numbered 1, 2, 3 … per job, and the frames made of them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, cast

from sqlalchemy import Row, Select, Table, insert, select
from sqlalchemy.orm import Session

from quart_app import commits
from quart_app.models import Event, Job, JobState

#: A JSON object: job, seq, at, type and what its type carries.
Frame = dict[str, Any]
#: Events that are read at once: a line of a log may have 8 KB.
PAGE = 100

_INSERT = insert(cast("Table", Event.__table__))
TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class NewEvent(NamedTuple):
    """What is to be an Event: its columns, and nothing of an ORM, which would take longer."""

    job_id: str
    seq: int
    at: datetime
    type: str
    data: Mapping[str, Any]


def record(session: Session, new: Sequence[NewEvent]) -> None:
    """Stores them; their frames are announced when the transaction has been committed."""
    if not new:
        return
    values = [event._asdict() for event in new]
    session.execute(_INSERT, values if len(values) > 1 else values[0])
    commits.prove(session, partial(_kept, new[-1]))
    announce(session, [frame(event) for event in new])


def of_state(job: Job | Row[Any], at: datetime, said: Mapping[str, Any] | None = None) -> NewEvent:
    """That the job is in its state now; `said` goes into it too."""
    data = {"state": job.state.value, "attempt": job.attempt, **(said or {})}
    return NewEvent(job.id, job.last_seq, at, "state", data)


def announce(session: Session, frames: Sequence[Frame]) -> None:
    commits.leave(session, "frames", *frames)


def since(session: Session, job_id: str, after: int = 0, limit: int | None = None) -> list[Frame]:
    """The stored frames of one job with a `seq` above `after`, in order."""
    found = select(Event).where(Event.job_id == job_id, Event.seq > after)
    return [frame(row) for row in session.scalars(found.order_by(Event.seq).limit(limit))]


def frame(event: Event | NewEvent) -> Frame:
    return {
        "job": event.job_id,
        "seq": event.seq,
        "at": timestamp(event.at),
        "type": event.type,
        **event.data,
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


def _kept(event: NewEvent) -> Select[Any]:
    """Its time tells it from the one that somebody else wrote with the same seq."""
    same = (Event.job_id == event.job_id, Event.seq == event.seq, Event.at == event.at)
    return select(Event.seq).where(*same)
