"""What a failed job tells of its error: the error itself, and the way to it within the task."""

import inspect
from collections.abc import Callable
from traceback import TracebackException
from types import TracebackType
from typing import Any

from quart_app.reporter import plain

#: Characters; of a longer one the end is kept, which is nearest to the error.
_MOST = 8_000


def named(error: BaseException) -> str:
    """Its kind and its text, in one line where the text is."""
    try:
        return plain(f"{type(error).__name__}: {error}")
    except Exception:  # of its own __str__: the job must end nevertheless
        return f"{type(error).__name__}: its text cannot be made"


def within(body: Callable[..., Any], error: BaseException) -> str | None:
    """From the body's own line on; None for an error that came before the body began."""
    code = inspect.unwrap(body).__code__
    step: TracebackType | None = error.__traceback__
    while step and step.tb_frame.f_code is not code:
        step = step.tb_next
    if step is None:
        return None
    text = "".join(TracebackException(type(error), error, step).format()).rstrip()
    return plain(text if len(text) <= _MOST else f"…{text[-_MOST:]}")
