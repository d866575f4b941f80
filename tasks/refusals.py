"""Messages that this worker did not take: logged, and those refused counted in all processes."""

import logging
import multiprocessing
import os
import threading
from ctypes import Array, c_uint64

from quart_app.seldom import Seldom

# Each process counts in a place of its own, as far as they go: a lock that they share would stay
# held when one is killed.
_PLACES = 1024

_counts: Array[c_uint64] | None = None
_lock = threading.Lock()
#: That a task is not known: its jobs are rung again and again.
_unknown = Seldom(60.0)

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
    if _unknown.passes(task := task[:255]):
        told = "Dropped message %s: this worker knows no task %r; is its module in CELERY_IMPORTS?"
        logger.warning(told, message, task)


def count() -> int:
    """Since the worker was started."""
    return 0 if _counts is None else sum(_counts)
