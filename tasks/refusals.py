"""Messages that this worker did not take: logged, and counted in all processes of its pool."""

import logging
import multiprocessing
from typing import Any

_count: Any = None

logger = logging.getLogger(__name__)


def begin() -> None:
    """To be called before the pool is made: its processes share the count."""
    global _count  # noqa: PLW0603 - one for each process
    _count = multiprocessing.Value("Q", 0)


def refuse(message: str, reason: str) -> None:
    if _count is not None:
        with _count.get_lock():
            _count.value += 1
    logger.warning("Refused message %s: %s", message, reason)


def count() -> int:
    """Since the worker was started."""
    return 0 if _count is None else int(_count.value)
