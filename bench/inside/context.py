"""The context of the application around a call that does nothing."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from asgi import app
from quart_app.celeryext import in_app_context


def figures(rounds: int, calls: int) -> Sequence[float]:
    """Microseconds for one task, for each round, beyond those of the same call without it."""
    _cost(_within, calls)  # warms it up
    return [(_cost(_within, calls) - _cost(_body, calls)) * 1e6 for _ in range(rounds)]


def _body() -> None:
    pass


def _within() -> Any:
    return in_app_context(app, _body)


def _cost(call: Callable[[], Any], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls
