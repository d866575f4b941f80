"""Sees the HTTP exchanges that foreign code makes through `requests`, and keeps them unlogged."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from requests import Response
from requests.adapters import HTTPAdapter

#: What came back, or why nothing did.
Exchange = Response | Exception

_seen: ContextVar[list[Exchange] | None] = ContextVar("exchanges", default=None)


@contextmanager
def watch() -> Iterator[list[Exchange]]:
    """Yields a list that fills with the exchanges made within, by this thread or coroutine."""
    _install()
    seen: list[Exchange] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


# Apprise answers True or False and says why only in its log, in words that change. Each of its HTTP
# plugins ends in this one method of requests, where the answer or the exception itself is seen.
@cache
def _install() -> None:
    send = HTTPAdapter.send

    @wraps(send)
    def watched(self: HTTPAdapter, *args: Any, **kwargs: Any) -> Response:
        try:
            response = send(self, *args, **kwargs)
        except Exception as error:
            _note(error)
            raise
        _note(response)
        return response

    HTTPAdapter.send = watched  # type: ignore[method-assign]
    for name in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(name).addFilter(_nobody_watches)


def _note(exchange: Exchange) -> None:
    seen = _seen.get()
    if seen is not None:
        seen.append(exchange)


def _nobody_watches(_record: logging.LogRecord) -> bool:
    """Addresses are logged whole by both, and ours carry credentials."""
    return _seen.get() is None
