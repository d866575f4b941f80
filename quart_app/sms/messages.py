"""The rows of messages: each is marked before it is handed over, and never handed over twice."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from uuid_utils import uuid7

from quart_app import actors, audit, baggage, db, events, traces
from quart_app.errors import Conflict, NotFound
from quart_app.models import Message, MessageState

#: The task that hands a message over.
TASK = "tasks.background.async_send_sms"
#: Nobody has taken a message that is in one of these.
_NOT_TAKEN = (MessageState.WAITING, MessageState.FAILED)
#: What becomes of a message that its job leaves behind, and why.
_LEFT_BEHIND = {
    MessageState.WAITING: (MessageState.FAILED, "its job ended before it was handed over"),
    MessageState.SENDING: (MessageState.UNKNOWN, "its job ended while it was being handed over"),
}
_UNSTARTED = (Message.state == MessageState.WAITING, Message.job_id.is_(None))


def schedule(
    session: Session, to: str, text: str, send_at: datetime, idempotency_key: str | None = None
) -> Message:
    """A message for later; `send_at` is aware. The same key again gives the same message.

    It keeps what travels with who asked, for its job. Raises Denied.
    """
    actors.check(TASK)
    new = {"to": to, "text": text, "send_at": send_at, "idempotency_key": idempotency_key}
    context = traces.onward(baggage.current()).known()
    try:
        with session.begin_nested():
            message = _add(session, state=MessageState.WAITING, context=context, **new)
    except IntegrityError:
        same = Message.idempotency_key == idempotency_key
        return session.scalars(select(Message).where(same)).one()
    audit.record(session, "message.schedule", message.id, send_at=events.timestamp(send_at))
    return message


def cancel(session: Session, message_id: str) -> None:
    """One that waits for its time ends as `failed`.

    Raises Denied, NotFound, or Conflict when it has a job, which can be cancelled, or its end.
    """
    actors.check(TASK)
    # Held by its id, as `due` does: by another index, this would deadlock with that.
    message = db.by_id(session, Message, message_id, held=True)
    if message is None:
        raise NotFound(f"There is no message {message_id}.")
    if message.state is not MessageState.WAITING or message.job_id:
        raise Conflict("This message waits no longer; if it has a job, that can be cancelled.")
    message.state, message.error = MessageState.FAILED, "cancelled before its time came"
    audit.record(session, "message.cancel", message.id)


def due(session: Session, limit: int = 500) -> list[Message]:
    """Waiting, their time come, and no job yet: locked, for the caller to set `job_id`.

    Those that another transaction has locked are left out, so that each gets one job.
    """
    are_due = _first_due(limit).where(Message.send_at <= db.now())
    ids = session.scalars(are_due.with_only_columns(Message.id)).all()
    # By their ids alone, as who cancels one does: by another index, this would deadlock with that.
    free = select(Message).where(Message.id.in_(ids)).order_by(Message.send_at, Message.id)
    held = session.scalars(free.with_for_update(skip_locked=True)).all()
    return [each for each in held if each.state is MessageState.WAITING and each.job_id is None]


def refuse(session: Session, message_id: str, error: str) -> None:
    """A waiting message that no job could hand over ends as `failed`."""
    _move(session, message_id, [MessageState.WAITING], MessageState.FAILED, error=error)


def begin(
    session: Session, job_id: str, to: str, text: str, provider: str | None = None
) -> tuple[Message, bool]:
    """The message of this job, made where there is none, and whether to hand it over now.

    True has marked it as `sending`: commit before the provider is called, then `record`. One that
    `failed` nobody has, so that a retry of its job sends it. A message found marked becomes
    `unknown`: an earlier attempt ended within the call.
    """
    message = session.scalar(select(Message).where(Message.job_id == job_id))
    if message is None:
        marked = {"state": MessageState.SENDING, "provider": provider}
        return _add(session, to=to, text=text, job_id=job_id, **marked), True
    anew = {"provider": provider, "error": None}
    go = _move(session, message.id, _NOT_TAKEN, MessageState.SENDING, **anew)
    if not go:
        error = "the attempt that was handing it over ended without an answer"
        _move(session, message.id, [MessageState.SENDING], MessageState.UNKNOWN, error=error)
    session.refresh(message)
    return message, go


def record(
    session: Session, message_id: str, state: MessageState, error: str | None = None
) -> None:
    """What became of a message that `begin` marked; `waiting` where it was not handed over.

    Raises Conflict when it is no longer `sending`: another attempt has judged it meanwhile.
    """
    sent_at = db.now() if state == MessageState.SENT else None
    if not _move(session, message_id, [MessageState.SENDING], state, error=error, sent_at=sent_at):
        raise Conflict(f"message {message_id} is not being sent, so it cannot become {state}")


def abandon(session: Session, job_ids: Sequence[str]) -> None:
    """Those of jobs that have ended: `unknown` where they were `sending`, `failed` if `waiting`."""
    left = (Message.job_id.in_(job_ids), Message.state.in_(_LEFT_BEHIND))
    # Found first, then locked by their ids alone, as all do: no two wait for each other.
    found = session.execute(select(Message.id, Message.state, Message.error).where(*left)).all()
    for message_id, before, reason in found:
        after, error = _LEFT_BEHIND[before]
        _move(session, message_id, [before], after, error=f"{error}: {reason}" if reason else error)


def waiting(session: Session, limit: int) -> list[Message]:
    """Those that have no job yet, the first due first."""
    return list(session.scalars(_first_due(limit)))


def recent(session: Session, limit: int = 20) -> list[Message]:
    """All others, newest first."""
    others = select(Message).where(~and_(*_UNSTARTED)).order_by(Message.id.desc())
    return list(session.scalars(others.limit(limit)))


def _first_due(limit: int) -> Select[Message]:
    first = select(Message).where(*_UNSTARTED).order_by(Message.send_at, Message.id)
    return first.limit(limit)


def _add(session: Session, **columns: Any) -> Message:
    message = Message(id=str(uuid7()), created_at=db.now(), **columns)
    session.add(message)
    session.flush()
    session.refresh(message)
    return message


def _move(
    session: Session,
    message_id: str,
    before: Sequence[MessageState],
    after: MessageState,
    **columns: Any,
) -> bool:
    here = (Message.id == message_id, Message.state.in_(before))
    result: Any = session.execute(update(Message).where(*here).values(state=after, **columns))
    return bool(result.rowcount)
