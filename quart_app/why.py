"""Why a job is where it is: one sentence for people, one word and its facts for programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from quart_app import db, jobs, nodes, publisher, queues, workers
from quart_app.models import Job, JobState, Node

#: Seconds by which a job may be late before that is worth a word: the relay looks twice a second.
_LATE = 5.0


@dataclass(frozen=True, slots=True)
class Why:
    """`reason` is one of the words below; `data` holds texts, numbers and datetimes."""

    reason: str
    detail: str
    data: Mapping[str, Any]


def explain(session: Session, job_id: str) -> Why:
    """Raises NotFound for an unknown id."""
    job = jobs.get(session, job_id)
    at = db.clock(session)
    return _BY_STATE.get(job.state, _ended)(session, job, at)


def _scheduled(session: Session, job: Job, at: datetime) -> Why:
    if late := _overdue(session, job, at):
        return late
    said = f"It waits for its time, {_time(job.available_at)}."
    return Why("not_due", said, {"until": job.available_at})


def _retrying(session: Session, job: Job, at: datetime) -> Why:
    if late := _overdue(session, job, at):
        return late
    said = (
        f"Attempt {job.attempt} of {job.max_attempts} failed; it is tried again at"
        f" {_time(job.available_at)}."
    )
    facts = {"attempt": job.attempt, "max_attempts": job.max_attempts, "error": job.error}
    return Why("retrying", said, {"until": job.available_at, **facts})


def _overdue(session: Session, job: Job, at: datetime) -> Why | None:
    """Its time has come and nobody has noticed: beat and every web process should have."""
    if (at - job.available_at).total_seconds() < _LATE:
        return None
    seen = session.scalar(select(func.max(Node.seen_at)).where(Node.kind == "beat"))
    if seen is None:
        beat = "no beat runs"
    elif (silence := (at - seen).total_seconds()) > nodes.GONE_AFTER:
        beat = f"beat has not ticked for {silence:.0f} s"
    else:
        beat = "beat runs, so see its log"
    said = f"It was due at {_time(job.available_at)} and nothing has brought it on: {beat}."
    return Why("overdue", said, {"due": job.available_at, "beat_seen_at": seen})


def _queued(session: Session, job: Job, at: datetime) -> Why:
    online = nodes.online(session, "worker")
    listening = [node for node in online if job.queue in queues.consumed(node)]
    facts = {"queue": job.queue, "workers": len(listening)}
    if not listening:
        return Why("no_worker", f"No worker that is online consumes queue '{job.queue}'.", facts)
    if not any(workers.knows(node, job.task) for node in listening):
        said = (
            f"No worker that is online and consumes queue '{job.queue}' knows '{job.task}': is its"
            " module in CELERY_IMPORTS there?"
        )
        return Why("unknown_task", said, facts | {"task": job.task})
    if job.published_at is None and _has_room(session, job.queue):
        said = "The broker has not got it yet; the relay hands it over as soon as it can."
        return Why("unpublished", said, facts | {"since": job.available_at})
    ahead = session.scalars(select(func.count()).where(*_ahead_of(job))).one()
    said = f"It waits behind {ahead} {'job' if ahead == 1 else 'jobs'} in queue '{job.queue}'."
    if not ahead:
        said = f"It is next in queue '{job.queue}': the first worker that is free takes it."
    return Why("behind" if ahead else "next", said, facts | {"ahead": ahead})


def _has_room(session: Session, queue: str) -> bool:
    """Whether the broker has room for the queue's next job: a full list's backlog waits here."""
    rung = (Job.state == JobState.QUEUED, Job.queue == queue, Job.published_at.is_not(None))
    held = session.scalars(select(func.count()).where(*rung)).one()
    return held < publisher.get().most_doorbells


def _ahead_of(job: Job) -> tuple[ColumnElement[bool], ...]:
    """By priority, then by when it was published, then by when it may be; its id settles a tie."""
    order: ColumnElement[bool]
    if job.published_at:
        order = _before(Job.published_at, job.published_at, job.id)
    else:
        order = or_(
            Job.published_at.is_not(None), _before(Job.available_at, job.available_at, job.id)
        )
    first = or_(Job.priority < job.priority, and_(Job.priority == job.priority, order))
    return Job.state == JobState.QUEUED, Job.queue == job.queue, first


def _before(column: Any, at: datetime, job_id: str) -> ColumnElement[bool]:
    return or_(column < at, and_(column == at, Job.id < job_id))


def _running(session: Session, job: Job, at: datetime) -> Why:
    facts = {
        "worker": job.worker, "since": job.started_at, "attempt": job.attempt,
        "lease_until": job.lease_until,
    }  # fmt: skip
    lives = [node for node in _workers(session) if workers.is_held_by(job, node)]
    seen = max((node.seen_at for node in lives), default=None)
    if job.lease_until and job.lease_until < at:
        return _over(job, seen, facts)
    if seen is None or (at - seen).total_seconds() > nodes.GONE_AFTER:
        return _silent(job, seen, facts)
    if job.cancel_requested:
        said = f"It was asked to stop, and worker '{job.worker}' has not ended it yet."
        return Why("asked_to_stop", said, facts)
    said = (
        f"Worker '{job.worker}' has held it since {_time(job.started_at)}"
        f" (attempt {job.attempt}, lease until {_time(job.lease_until)})."
    )
    return Why("held", said, facts)


def _over(job: Job, seen: datetime | None, facts: Mapping[str, Any]) -> Why:
    """Nobody has kept the job for the length of its lease, as the relay sees when it looks next."""
    said = (
        f"Worker '{job.worker}' has not kept it since its lease ended, {_time(job.lease_until)}"
        f" ({_last_heard(seen)}); it is {_fate(job)} within a few seconds."
    )
    return Why("lease_over", said, {**facts, "worker_seen_at": seen})


def _silent(job: Job, seen: datetime | None, facts: Mapping[str, Any]) -> Why:
    heard = f"has been silent since {_time(seen)}" if seen else "is gone"
    said = f"Worker '{job.worker}' {heard}; the job is {_fate(job)} at {_time(job.lease_until)}."
    return Why("worker_silent", said, {**facts, "worker_seen_at": seen})


def _fate(job: Job) -> str:
    return "cancelled" if job.cancel_requested else "given back"


def _last_heard(seen: datetime | None) -> str:
    return f"the worker was last heard of at {_time(seen)}" if seen else "the worker is gone"


def _workers(session: Session) -> list[Node]:
    """All that have not said that they ended, silent ones among them."""
    return list(session.scalars(select(Node).where(Node.kind == "worker")))


def _ended(session: Session, job: Job, at: datetime) -> Why:
    words = {JobState.SUCCEEDED: "It succeeded", JobState.FAILED: "It failed"}
    said = f"{words.get(job.state, 'It was cancelled')} at {_time(job.finished_at)}"
    if job.state is JobState.FAILED and job.error:
        said += f": {job.error.partition(chr(10))[0]}"
    facts = {"state": job.state.value, "finished_at": job.finished_at, "error": job.error}
    return Why("ended", said if said.endswith(".") else f"{said}.", facts)


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "an unknown time"


_BY_STATE: Mapping[JobState, Callable[[Session, Job, datetime], Why]] = {
    JobState.SCHEDULED: _scheduled,
    JobState.RETRYING: _retrying,
    JobState.QUEUED: _queued,
    JobState.RUNNING: _running,
}
