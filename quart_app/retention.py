"""How long what has ended is kept: the rest goes, in batches that nobody has to wait for."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.intake import KEY_HOURS
from quart_app.models import AuditEntry, Job, JobState, Message, MessageState, Node, Repeat

_DAY = 86_400.0
#: Events that go with the jobs of one transaction: a database ends a statement that takes long.
_MOST_EVENTS = 10_000
#: Of messages all but those whose outcome somebody may still want to find out.
_ENDED_MESSAGES = (MessageState.SENT, MessageState.FAILED)


def ages(config: Mapping[str, Any]) -> dict[JobState, float]:
    """Seconds that a job is kept after its end, by its final state."""
    return {
        JobState.SUCCEEDED: config["KEEP_SUCCEEDED"] * _DAY,
        JobState.FAILED: config["KEEP_FAILED"] * _DAY,
        JobState.CANCELLED: config["KEEP_CANCELLED"] * _DAY,
    }


def prune(session: Session, state: JobState, age: float, most: int) -> int:
    """Deletes jobs that ended in `state` more than `age` seconds ago, with their events.

    Fewer than there are and than `most` where they have many events, but one at least.
    """
    old = select(Job.id, Job.last_seq).where(
        Job.state == state,
        Job.available_at < db.now(-age),  # by its index: no job ends before it may begin
        Job.finished_at < db.now(-age),
    )
    found = session.execute(old.order_by(Job.available_at).limit(most)).all()
    sums = accumulate(job.last_seq for job in found)  # the seq of its newest event is their number
    fitting = sum(events <= _MOST_EVENTS for events in sums)
    ids = [job.id for job in found[: max(1, fitting)]]
    # One that was retried meanwhile is not to be forgotten, though it may have ended once more.
    session.execute(
        delete(Job).where(Job.id.in_(ids), Job.state == state, Job.finished_at < db.now(-age))
    )
    return len(ids)


def prune_repeats(session: Session, most: int) -> int:
    """Deletes the Idempotency-Keys of jobs that were there, once they stand for nothing more."""
    old = select(Repeat.idempotency_key).where(Repeat.accepted_at < db.now(-KEY_HOURS * 3600))
    return _delete(session, Repeat, old.order_by(Repeat.accepted_at).limit(most))


def prune_messages(session: Session, age: float, most: int) -> int:
    """Deletes messages that were sent or failed and had their time more than `age` seconds ago."""
    its_time = func.coalesce(Message.send_at, Message.created_at)
    old = (Message.state.in_(_ENDED_MESSAGES), its_time < db.now(-age))
    return _delete(session, Message, select(Message.id).where(*old).limit(most))


def prune_audit(session: Session, days: float, most: int) -> int:
    """Deletes entries of the audit log that are older than so many days."""
    old = select(AuditEntry.id).where(AuditEntry.at < db.now(-days * _DAY))
    return _delete(session, AuditEntry, old.order_by(AuditEntry.at).limit(most))


def prune_nodes(session: Session) -> int:
    """Forgets workers and beats that have been silent for a day."""
    silent = select(Node.name).where(Node.seen_at < db.now(-_DAY))
    return _delete(session, Node, silent)


def _delete(session: Session, table: Any, ids: Select[Any]) -> int:
    # Read first, then deleted by primary key: a wide statement would lock out others.
    (key,) = table.__table__.primary_key.columns
    found = session.scalars(ids).all()
    session.execute(delete(table).where(key.in_(found)))
    return len(found)
