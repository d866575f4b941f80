"""How an attempt ended, put down: a result that can be kept, and a database that is waited for."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from pydantic_core import to_jsonable_python
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.reporter import Run

#: Bytes of JSON; a larger result would not fit into a packet of every database.
MOST_RESULT = 4 * 1024 * 1024
_LONGEST_PAUSE = 5.0

logger = logging.getLogger(__name__)


def as_json(result: Any) -> Any:
    """The result as it is to be stored; raises ValueError for what cannot be."""
    plain = to_jsonable_python(result)
    size = len(json.dumps(plain, ensure_ascii=False, allow_nan=False).encode())
    if size > MOST_RESULT:
        raise ValueError(f"its result takes {size} bytes, and {MOST_RESULT} are kept at most")
    return plain


def record(run: Run, lease: float, end: Callable[[Session], None]) -> None:
    """Writes the outcome and what was not stored yet; raises Fenced when it comes too late.

    While the database is away the outcome is held, not lost.
    """
    pause = 0.1
    while True:
        try:
            with run.lock, db.session() as session:
                if run.is_unsaid:
                    run.store(session, lease)
                end(session)
            return
        except (OperationalError, InterfaceError) as error:
            name = type(error).__name__
            logger.warning("Job %s: its outcome waits for the database: %s", run.job_id, name)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
