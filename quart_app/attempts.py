"""An attempt at a job: claimed, kept and ended, each fenced, so that only the newest one counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Float, Row, bindparam, case, select, update
from sqlalchemy.orm import Session, make_transient_to_detached

from quart_app import db, events
from quart_app.events import NewEvent
from quart_app.models import Event, Job, JobState
from quart_app.moves import Move, column

#: What an attempt knows of its job, beside what each move tells.
_NEEDED = (
    column.task, column.queue, column.args, column.kwargs, column.max_attempts, column.context,
)  # fmt: skip
_CLAIM = Move(
    JobState.RUNNING,
    column.task == bindparam("its_task"),
    column.available_at <= db.now(),
    column.cancel_requested.is_(False),
    from_=(JobState.QUEUED,),
    of=_NEEDED,
    attempt=column.attempt + 1,
    # Its doorbell was heard, though whoever rang it may not have noted that yet, or does just now.
    published_at=case((column.published_at < db.now(), column.published_at), else_=db.now()),
    started_at=db.now(),
    lease_until=db.now(bindparam("lease", type_=Float)),
    progress=None,
)

_MINE = column.attempt == bindparam("mine")
_end = partial(
    Move, from_=(JobState.RUNNING,), finished_at=db.now(), lease_until=None, live_key=None
)
_SUCCEED = _end(JobState.SUCCEEDED, _MINE, error=None)
_FAIL = _end(JobState.FAILED, _MINE)
_CANCEL = _end(JobState.CANCELLED, _MINE)
_POSTPONE = Move(
    JobState.RETRYING,
    _MINE,
    column.cancel_requested.is_(False),
    from_=(JobState.RUNNING,),
    available_at=db.now(bindparam("wait", type_=Float)),
    lease_until=None,
    published_at=None,
    rings=0,
)


class Fenced(Exception):
    """The job has ended or is another attempt's by now: what this one has to say comes too late."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a job's log."""

    at: datetime
    level: str
    message: str


def claim(
    session: Session,
    job_id: str,
    task: str,
    worker: str,
    lease: float,
    *,
    holder: str | None = None,
) -> Job | None:
    """Takes the job for `lease` seconds; None when there is nothing to take (any more).

    It has its id, task, queue, arguments, attempts and context, and no more.

    `holder` names the process of the worker, as `nodes.holder()` does.
    """
    said = {"worker": worker}
    row = _CLAIM(session, job_id, said, its_task=task, worker=worker, holder=holder, lease=lease)
    if row is None:
        return None
    known = {each.key: getattr(row, each.key) for each in _NEEDED}
    job = Job(id=row.id, state=row.state, attempt=row.attempt, **known)
    make_transient_to_detached(job)  # lest what it has not be taken for None
    return job


def claimed(session: Session, job_id: str, holder: str) -> Job | None:
    """The job, while this process holds it by a `claim` of its own."""
    mine = (Job.id == job_id, Job.holder == holder, Job.state == JobState.RUNNING)
    return session.scalar(select(Job).where(*mine))


def succeeded(session: Session, job_id: str, attempt: int) -> bool:
    """Whether this attempt's success is recorded: no other hand could have done that."""
    done = (Job.id == job_id, Job.attempt == attempt, Job.state == JobState.SUCCEEDED)
    return session.scalar(select(Job.id).where(*done)) is not None


def keep(
    session: Session,
    job_id: str,
    attempt: int,
    lease: float,
    *,
    progress: dict[str, Any] | None = None,
    lines: Sequence[Line] = (),
) -> bool:
    """Extends the lease and stores what the attempt said; True when it is asked to stop.

    Raises Fenced when the job has ended or was given to another attempt.
    """
    change: dict[str, Any] = {"lease_until": db.now(lease), "last_seq": Job.last_seq + len(lines)}
    if progress is not None:
        change["progress"] = progress
    mine = (Job.id == job_id, Job.attempt == attempt, Job.state == JobState.RUNNING)
    kept = update(Job).where(*mine).values(change)
    if session.execute(kept).rowcount == 0:  # type: ignore[attr-defined]
        raise Fenced
    last_seq, asked = session.execute(
        select(Job.last_seq, Job.cancel_requested).where(Job.id == job_id)
    ).one()
    events.record(session, _log_events(job_id, last_seq - len(lines), lines))
    return bool(asked)


def has_line(session: Session, job_id: str, line: Line) -> bool:
    """Whether it is kept: a commit whose answer was lost may have been carried out."""
    same = (Event.job_id == job_id, Event.type == "log", Event.at == line.at)
    return line.message in {
        data["message"] for data in session.scalars(select(Event.data).where(*same))
    }


def succeed(session: Session, job_id: str, attempt: int, result: Any) -> None:
    _fenced(_SUCCEED(session, job_id, {"result": result}, mine=attempt, result=result))


def fail(
    session: Session, job_id: str, attempt: int, error: str, *, traceback: str | None = None
) -> None:
    said = _told(error, traceback)
    _fenced(_FAIL(session, job_id, said, mine=attempt, error=error))


def cancel(
    session: Session, job_id: str, attempt: int, why: str = "cancelled while running"
) -> None:
    _fenced(_CANCEL(session, job_id, {"error": why}, mine=attempt))


def leave(session: Session, job_id: str, attempt: int, *, cancelled: bool) -> None:
    """Ends the job while its body goes on, since nothing ends that: its own end comes too late."""
    why = "cancelled while running" if cancelled else "it ran longer than it may"
    end = cancel if cancelled else fail
    end(session, job_id, attempt, f"{why}; its body does not stop, and is left to itself")


def postpone(
    session: Session,
    job_id: str,
    attempt: int,
    error: str,
    wait: float,
    *,
    traceback: str | None = None,
) -> None:
    """Failed, and to be tried again in `wait` seconds, unless the job was cancelled meanwhile."""
    said = _told(error, traceback) | {"retry_in": round(wait, 3)}
    if not _POSTPONE(session, job_id, said, mine=attempt, error=error, wait=wait):
        cancel(session, job_id, attempt)


def _told(error: str, traceback: str | None) -> dict[str, Any]:
    """The traceback is told by the event alone: each attempt may have another."""
    return {"error": error} | ({"traceback": traceback} if traceback else {})


def _log_events(job_id: str, last_seq: int, lines: Sequence[Line]) -> list[NewEvent]:
    return [
        NewEvent(job_id, seq, line.at, "log", {"level": line.level, "message": line.message})
        for seq, line in enumerate(lines, last_seq + 1)
    ]


def _fenced(moved: Row[Any] | None) -> None:
    if moved is None:
        raise Fenced
