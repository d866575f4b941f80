"""Messages that this worker did not take: logged, and those refused counted in all processes."""

import logging
import multiprocessing
import os
import threading
import time
from ctypes import Array, c_uint64

# Each process counts in a place of its own, as far as they go: a lock that they share would stay
# held when one is killed.
_PLACES = 1024
#: Seconds for which it is enough to have said that a task is not known: its jobs are rung again.
_SAID_FOR = 60.0

_counts: Array[c_uint64] | None = None
_lock = threading.Lock()
#: When it was said of which tasks.
_said: dict[str, float] = {}

logger = logging.getLogger(__name__)


def begin() -> None:
    """To be called before the pool is made: its processes share the counts."""
    global _counts  # noqa: PLW0603 - one for each worker
    _counts = multiprocessing.RawArray(c_uint64, _PLACES)


def refuse(message: str, reason: str) -> None:
    if _counts is not None:
        with _lock:
            _counts[os.getpid() % _PLACES] += 1
    logger.warning("Refused message %s: %s", message, reason)


def unknown(message: str, task: str) -> None:
    """A message whose task this worker does not have; another may have it, or the next start."""
    now, task = time.monotonic(), task[:255]
    for name in [name for name, at in _said.items() if at < now - _SAID_FOR]:
        del _said[name]
    if task not in _said:
        _said[task] = now
        told = "Dropped message %s: this worker knows no task %r; is its module in CELERY_IMPORTS?"
        logger.warning(told, message, task)


def count() -> int:
    """Since the worker was started."""
    return 0 if _counts is None else sum(_counts)
