"""The workers that are online, and what each of them runs now."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from quart_app import db, nodes
from quart_app.models import Job, JobState, Node

#: What is told of a job that runs: id, task, attempt, started_at and worker.
Running = Row[str, str, int, datetime | None, str | None]


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
    at = session.scalars(select(db.now())).one()
    running = _running(session)
    return [
        Worker(node, max(0.0, (at - node.seen_at).total_seconds()), running[name_of(node)])
        for node in nodes.online(session, "worker")
    ]


def name_of(node: Node) -> str:
    """Its name as jobs have it; a node's adds the process, since two may share a name."""
    return str(node.info.get("hostname") or node.name.rpartition(":")[0])


def _running(session: Session) -> dict[str, list[Running]]:
    card = select(Job.id, Job.task, Job.attempt, Job.started_at, Job.worker)
    found: dict[str, list[Running]] = defaultdict(list)
    for job in session.execute(card.where(Job.state == JobState.RUNNING).order_by(Job.started_at)):
        found[job.worker or ""].append(job)
    return found
