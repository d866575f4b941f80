"""An attempt at a job: claimed, kept and ended, each fenced, so that only the newest one counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from quart_app import db, events, jobs
from quart_app.models import Event, Job, JobState

#: What an attempt knows of its job.
_NEEDED = (Job.id, Job.task, Job.queue, Job.args, Job.kwargs, Job.max_attempts, Job.context)


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
    free = (Job.task == task, Job.available_at <= db.now(), Job.cancel_requested.is_(False))
    return jobs.move(
        session, job_id, JobState.RUNNING, *free,
        from_=(JobState.QUEUED,),
        said={"worker": worker},
        of=_NEEDED,
        attempt=Job.attempt + 1, worker=worker, holder=holder, lease_until=db.now(lease),
        started_at=db.now(), progress=None,
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
    kept = update(Job).where(*_mine(job_id, attempt)).values(change)
    if session.execute(kept).rowcount == 0:  # type: ignore[attr-defined]
        raise Fenced
    last_seq, asked = session.execute(
        select(Job.last_seq, Job.cancel_requested).where(Job.id == job_id)
    ).one()
    events.record(session, _log_events(job_id, last_seq - len(lines), lines))
    return bool(asked)


def succeed(session: Session, job_id: str, attempt: int, result: Any) -> None:
    _end(
        session,
        job_id,
        attempt,
        JobState.SUCCEEDED,
        said={"result": result},
        result=result,
        error=None,
    )


def fail(session: Session, job_id: str, attempt: int, error: str) -> None:
    _end(session, job_id, attempt, JobState.FAILED, said={"error": error}, error=error)


def cancel(session: Session, job_id: str, attempt: int) -> None:
    _end(session, job_id, attempt, JobState.CANCELLED, said={"error": "cancelled while running"})


def postpone(session: Session, job_id: str, attempt: int, error: str, wait: float) -> None:
    """Failed, and to be tried again in `wait` seconds, unless the job was cancelled meanwhile."""
    moved = jobs.move(
        session, job_id, JobState.RETRYING, *_mine(job_id, attempt),
        Job.cancel_requested.is_(False),
        from_=(JobState.RUNNING,),
        said={"error": error, "retry_in": round(wait, 3)},
        of=(Job.id,),
        error=error, available_at=db.now(wait), lease_until=None, published_at=None, rings=0,
    )  # fmt: skip
    if moved is None:
        cancel(session, job_id, attempt)


def _mine(job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == job_id, Job.attempt == attempt, Job.state == JobState.RUNNING)


def _log_events(job_id: str, last_seq: int, lines: Sequence[Line]) -> list[Event]:
    return [
        Event(
            job_id=job_id, seq=seq, at=line.at, type="log",
            data={"level": line.level, "message": line.message},
        )
        for seq, line in enumerate(lines, last_seq + 1)
    ]  # fmt: skip


def _end(session: Session, job_id: str, attempt: int, state: JobState, **changes: Any) -> None:
    moved = jobs.move(
        session, job_id, state, *_mine(job_id, attempt),
        from_=(JobState.RUNNING,),
        of=(Job.id,),
        finished_at=db.now(), lease_until=None, live_key=None, **changes,
    )  # fmt: skip
    if moved is None:
        raise Fenced
