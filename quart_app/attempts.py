"""An attempt at a job: claimed, kept and ended, each fenced, so that only the newest one counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Float, bindparam, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from quart_app import db, events
from quart_app.models import Event, Job, JobState
from quart_app.moves import Move, column

_Column = InstrumentedAttribute[Any]
#: What an attempt knows of its job.
_NEEDED: Sequence[_Column] = (
    Job.task, Job.queue, Job.args, Job.kwargs, Job.max_attempts, Job.context,
)  # fmt: skip


class Fenced(Exception):
    """Another attempt owns the job by now: whatever this one has to say comes too late."""


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
    return _CLAIM(
        session, job_id, {"worker": worker},
        its_task=task, worker=worker, holder=holder, its_lease=lease,
    )  # fmt: skip


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

    Raises Fenced when the job was given to another attempt.
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


def succeed(session: Session, job_id: str, attempt: int, result: Any) -> None:
    said = {"result": result}
    _end(_SUCCEED(session, job_id, said, this=attempt, result=result))


def fail(session: Session, job_id: str, attempt: int, error: str) -> None:
    _end(_FAIL(session, job_id, {"error": error}, this=attempt, error=error))


def cancel(session: Session, job_id: str, attempt: int) -> None:
    _end(_CANCEL(session, job_id, {"error": "cancelled while running"}, this=attempt))


def postpone(session: Session, job_id: str, attempt: int, error: str, wait: float) -> None:
    """Failed, and to be tried again in `wait` seconds, unless the job was cancelled meanwhile."""
    said = {"error": error, "retry_in": round(wait, 3)}
    if not _POSTPONE(session, job_id, said, this=attempt, error=error, wait=wait):
        cancel(session, job_id, attempt)


def _log_events(job_id: str, last_seq: int, lines: Sequence[Line]) -> list[Event]:
    return [
        Event(
            job_id=job_id, seq=seq, at=line.at, type="log",
            data={"level": line.level, "message": line.message},
        )
        for seq, line in enumerate(lines, last_seq + 1)
    ]  # fmt: skip


def _end(moved: Job | None) -> None:
    if moved is None:
        raise Fenced


_MINE = column.attempt == bindparam("this")
_CLAIM = Move(
    JobState.RUNNING,
    column.task == bindparam("its_task"),
    column.available_at <= db.now(),
    column.cancel_requested.is_(False),
    from_=(JobState.QUEUED,),
    of=_NEEDED,
    attempt=column.attempt + 1,
    lease_until=db.now(bindparam("its_lease", type_=Float)),
    started_at=db.now(),
    progress=None,
)
_end_by = partial(
    Move, from_=(JobState.RUNNING,), of=(Job.id,),
    finished_at=db.now(), lease_until=None, live_key=None,
)  # fmt: skip
_SUCCEED = _end_by(JobState.SUCCEEDED, _MINE, error=None)
_FAIL = _end_by(JobState.FAILED, _MINE)
_CANCEL = _end_by(JobState.CANCELLED, _MINE)
_POSTPONE = Move(
    JobState.RETRYING,
    _MINE,
    column.cancel_requested.is_(False),
    from_=(JobState.RUNNING,),
    of=(Job.id,),
    available_at=db.now(bindparam("wait", type_=Float)),
    lease_until=None,
    published_at=None,
    rings=0,
)
