"""How an attempt ended, put down: a result that can be kept, and a database that is waited for."""

import json
import logging
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic_core import PydanticSerializationError, to_jsonable_python
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from quart_app import attempts, commits, db
from quart_app.attempts import Fenced
from quart_app.reporter import Run
from quart_app.seldom import Seldom

T = TypeVar("T")

#: Bytes of JSON; a larger result would not fit into a packet of every database.
MOST_RESULT = 4 * 1024 * 1024
_LONGEST_PAUSE = 1.0
#: Of MySQL: a lock that was waited for too long, and a deadlock.
_BUSY = (1205, *commits.DEADLOCK)

logger = logging.getLogger(__name__)
_warnings = Seldom()


def as_json(result: Any) -> Any:
    """The result as it is to be stored; raises ValueError for what cannot be."""
    try:
        plain = to_jsonable_python(result)
    except PydanticSerializationError as error:
        raise ValueError(f"its result is no JSON: {error}") from None
    size = len(json.dumps(plain, ensure_ascii=False, allow_nan=False).encode())
    if size > MOST_RESULT:
        raise ValueError(f"its result takes {size} bytes, and {MOST_RESULT} are kept at most")
    return plain


def record(run: Run, lease: float, end: Callable[[Session], None]) -> None:
    """Writes the outcome and what was not stored yet; raises Fenced when it comes too late.

    While the database is away the outcome is held, not lost.
    """

    def store(session: Session, again: bool) -> None:
        try:
            if run.is_unsaid:
                run.store(session, lease)
            end(session)
        except Fenced:
            if not (again and attempts.succeeded(session, run.job_id, run.attempt)):
                raise

    with run.lock:
        insist(store, f"The outcome of job {run.job_id}")


def insist(verb: Callable[[Session, bool], T], what: str, patience: float = math.inf) -> T:
    """`verb(session, again)` in a transaction of its own, until the database takes it.

    `again`: the one before may have been carried out, though its answer never came. Raises what the
    database's driver raises after `patience` seconds.
    """
    pause, deadline, again = 0.1, time.monotonic() + patience, False
    while True:
        try:
            with db.session() as session:
                return verb(session, again)
        except db.AWAY as error:
            if time.monotonic() > deadline:
                raise
            _warnings.warn(logger, f"{what} waits for the database", error)
            time.sleep(pause)
            pause, again = min(pause * 2, _LONGEST_PAUSE), True


def include(session: Session, call: Callable[[Session], object]) -> None:
    """Has a task's own rows written with its outcome.

    An error of its statements is raised as the driver's: `record` would wait for the database.
    """
    try:
        call(session)
        session.flush()
    except (OperationalError, InterfaceError) as error:
        if error.connection_invalidated or not error.orig or error.orig.args[0] in _BUSY:
            raise
        raise error.orig from error
