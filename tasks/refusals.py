"""Messages that this worker did not take: logged, and counted in all processes of its pool."""

import logging
import multiprocessing
import os
import threading
from ctypes import Array, c_uint64

# Each process counts in a place of its own, as far as they go: a lock that they share would stay
# held when one is killed.
_PLACES = 1024

_counts: Array[c_uint64] | None = None
_lock = threading.Lock()

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


def count() -> int:
    """Since the worker was started."""
    return 0 if _counts is None else sum(_counts)
