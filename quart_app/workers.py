"""The workers that are online, and what each of them runs now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from quart_app import db, nodes
from quart_app.models import Job, JobState, Node

#: What is told of a job that runs: id, task, attempt, started_at, worker and holder.
Running = Row[str, str, int, datetime | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Worker:
    """One that is online; `age` is the seconds since it was last heard of."""

    node: Node
    age: float
    jobs: Sequence[Running]

    @property
    def name(self) -> str:
        return name_of(self.node)

    @property
    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = self.node.info
        return info


def online(session: Session) -> list[Worker]:
    """From our tables alone: a worker that is busy or stuck is shown all the same."""
    at = db.clock(session)
    running = _running(session)
    return [
        Worker(
            node,
            max(0.0, (at - node.seen_at).total_seconds()),
            [job for job in running if is_held_by(job, node)],
        )
        for node in nodes.online(session, "worker")
    ]


def knows(node: Node, task: str) -> bool:
    """Whether it has the task; of an older version, that does not say so, it is presumed."""
    return task in node.info.get("tasks", (task,))


def name_of(node: Node) -> str:
    """Its name as jobs have it; a node's adds the process, since two may share a name."""
    return str(node.info.get("hostname") or node.name.rpartition(":")[0])


def is_held_by(job: Running | Job, node: Node) -> bool:
    """Whether it is this life of the worker that runs it: the one before had the same name."""
    if job.holder is None:  # claimed by a version that wrote down the name alone
        return job.worker == name_of(node)
    return job.holder.partition("/")[0] == node.boot


def pid_of(job: Running) -> int | None:
    """The process that runs it."""
    pid = (job.holder or "").partition("/")[2]
    return int(pid) if pid else None


def _running(session: Session) -> Sequence[Running]:
    card = select(Job.id, Job.task, Job.attempt, Job.started_at, Job.worker, Job.holder)
    held = card.where(Job.state == JobState.RUNNING).order_by(Job.started_at)
    return session.execute(held).all()
