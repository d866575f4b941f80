"""Jobs whose worker was lost: queued again, or ended, by conditional updates that many may try."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from quart_app import attempts, db, publisher
from quart_app.models import Job, JobState
from quart_app.moves import Move, column

#: A job under which its own process died this often is taken for what kills it.
MOST_DEATHS = 3
#: As often may a whole node be lost under it, which mostly has other reasons.
MOST_LOSSES = 10


def silent(session: Session, limit: int) -> Sequence[str]:
    """The ids of running jobs that nobody has kept for the length of their lease."""
    found = select(Job.id).where(*_is_silent())
    return session.scalars(found.order_by(Job.lease_until).limit(limit)).all()


def give_back(session: Session, job_id: str) -> None:
    """A job whose worker fell silent."""
    job = session.get_one(Job, job_id)
    _release(session, job, *_is_silent(), why=f"worker {job.worker} was lost", most=MOST_LOSSES)


def node_ended(session: Session, boot: str) -> int:
    """Gives back what a node ran that is gone for certain; how many jobs that were."""
    held = select(Job).where(Job.state == JobState.RUNNING, Job.holder.startswith(f"{boot}/"))
    found = session.scalars(held.order_by(Job.id)).all()
    for job in found:
        _release(session, job, why=f"worker {job.worker} ended under it", most=MOST_LOSSES)
    return len(found)


def process_died(session: Session, job_id: str, holder: str) -> None:
    """Gives back a job whose own process died while its node lives on."""
    if job := attempts.claimed(session, job_id, holder):
        why = f"its process died under it, on worker {job.worker}"
        _release(session, job, why=why, most=MOST_DEATHS)


def stopped(session: Session, job_id: str, attempt: int) -> None:
    """Gives back a job that was broken off because its process was told to stop."""
    job = session.get_one(Job, job_id)
    if job.attempt == attempt:
        _release(session, job, why=f"worker {job.worker} was stopped", most=None)


def _is_silent() -> tuple[ColumnElement[bool], ...]:
    return (column.state == JobState.RUNNING, column.lease_until < db.now())


def _release(
    session: Session, job: Job, *still: ColumnElement[bool], why: str, most: int | None
) -> None:
    """Out of the hands of its attempt, unless that has ended or given it away already.

    It keeps its turn: of a backlog those that are due longest are brought to the broker first.
    It fails if it was lost `most` times and had its attempts; None where it is not to blame.
    """
    to, why = _verdict(job, why, most)
    asked = column.cancel_requested.is_(job.cancel_requested)
    still = (*still, column.attempt == job.attempt, asked)
    changes: dict[str, Any] = {"lease_until": None, "error": why, "rings": 0}
    if most:
        changes["losses"] = column.losses + 1
    if to is JobState.QUEUED:
        changes["published_at"] = None
    else:
        changes |= {"finished_at": db.now(), "live_key": None}
    release = Move(to, *still, from_=(JobState.RUNNING,), of=publisher.NEEDED, **changes)
    moved = release(session, job.id, said={"error": why})
    if moved and to is JobState.QUEUED:
        publisher.ring(session, moved)


def _verdict(job: Job, why: str, most: int | None) -> tuple[JobState, str]:
    if job.cancel_requested:
        return JobState.CANCELLED, "cancelled while running"
    if job.on_lost == "fail":
        return JobState.FAILED, f"{why}; its task says that it is not to be run again"
    if most and job.losses + 1 >= most and job.attempt >= job.max_attempts:
        return JobState.FAILED, f"{why}, and it had been lost {job.losses} times before"
    return JobState.QUEUED, why
