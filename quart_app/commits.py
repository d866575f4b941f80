"""A commit: what it leaves to be done, unless a savepoint undoes it, and whether it came through.

Both doors to the database, of the web and of a thread, carry out their transactions here.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Select, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoAnswer
from sqlalchemy.orm import Session, SessionTransaction

from quart_app.errors import Unsure

T = TypeVar("T")
#: Selects what only its transaction has written; made when it is needed.
Proof = Callable[[], Select[Any]]

#: Seconds for all that a verb does, or for one answer to a worker.
PATIENCE = 20
TRIES = 3
#: Seconds for which a database that comes back is asked what became of a commit.
_ASK_FOR = 5.0
#: A deadlock undoes the whole transaction: amid a savepoint, that is then not there any more.
DEADLOCK = (1213, 1305)


class Door(NamedTuple):
    """What the web and a thread differ in: how they wait."""

    #: For a verb in a transaction of its own that may write, and may take so many seconds.
    transact: Callable[[Callable[[Session], Any], float], Any]
    sleep: Callable[[float], None]


def leave(session: Session, name: str, *what: Any) -> None:
    """Keeps it until the commit, unless its savepoint is undone."""
    _left(session).setdefault(name, []).extend(what)


def taken(session: Session, name: str) -> list[Any]:
    """What was left under this name, which is the caller's now."""
    return _left(session).pop(name, [])


def prove(session: Session, proof: Proof) -> None:
    """Gives what tells, in a later transaction, whether this one was committed."""
    leave(session, "proofs", proof)


def carry_out(door: Door, verb: Callable[[Session], T]) -> tuple[Session, T]:
    """Calls `verb(session)` in one transaction, anew where a deadlock or a cut undid it.

    Raises Unsure where a commit was cut off, and nothing proves or the database does not say what
    became of it.
    """
    done: list[tuple[Session, T]] = []

    def call(session: Session) -> None:
        result = verb(session)
        session.flush()
        # Lest a commit that fails, though it has landed, empties the objects that are returned.
        session.expunge_all()
        done.append((session, result))

    deadline = time.monotonic() + PATIENCE
    for tries_left in reversed(range(TRIES)):
        done.clear()
        try:
            door.transact(call, PATIENCE)
            break
        except (DBAPIError, NoAnswer) as error:
            if done and _has_landed(door, done[0][0], error):
                break
            is_undone = _is_deadlock(error) or (is_cut_off(error) and not done)
            if not (tries_left and is_undone and time.monotonic() < deadline):
                raise
    return done[0]


def is_cut_off(error: Exception) -> bool:
    """Whether a connection was found dead, so that what it was to do is undone."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _has_landed(door: Door, session: Session, error: Exception) -> bool:
    """Whether a transaction was committed although its commit failed: asked, never guessed."""
    if _is_deadlock(error):
        return False
    proofs: list[Proof] = taken(session, "proofs")
    if not proofs:
        if is_cut_off(error) or isinstance(error, NoAnswer):
            raise Unsure from error
        return False
    # With a lock, which waits for the end of that transaction: it may still be on its way.
    kept = proofs[-1]().with_for_update(read=True)
    deadline = time.monotonic() + _ASK_FOR
    while (left := deadline - time.monotonic()) > 0:
        with suppress(DBAPIError, NoAnswer):
            return door.transact(lambda asking: asking.execute(kept).first(), left) is not None
        door.sleep(0.2)
    raise Unsure from error


def _is_deadlock(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else None
    return bool(cause and cause.args and cause.args[0] in DEADLOCK)


def _left(session: Session) -> dict[str, list[Any]]:
    left: dict[str, list[Any]] = session.info.setdefault("left", {})
    return left


@event.listens_for(Session, "after_transaction_create")
def _mark(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested:
        marks = session.info.setdefault("marks", {})
        marks[transaction] = {name: len(what) for name, what in _left(session).items()}


@event.listens_for(Session, "after_soft_rollback")
def _take_back(session: Session, transaction: SessionTransaction) -> None:
    marks = session.info.get("marks", {}).pop(transaction, None)
    if marks is not None:
        for name, what in _left(session).items():
            del what[marks.get(name, 0) :]
