"""What is run where only the way there is measured."""

import time
from typing import Any

from tasks.base import task


@task
def nothing() -> None:
    """Ends at once."""


@task(bind=True)
def report(self: Any, times: int, every: float) -> float:
    """Says when it says it; the microseconds that one call of `progress` took."""
    spent = 0.0
    for turn in range(1, times + 1):
        began = time.monotonic()
        self.progress(turn, times, repr(began))
        spent += time.monotonic() - began
        time.sleep(every)
    return spent / times * 1e6
