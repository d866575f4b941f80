"""Tasks that the tests run on a real worker."""

import asyncio
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from quart import current_app, g

from quart_app.errors import Permanent
from tasks.base import task


@task
def add(left: int, right: int = 1) -> int:
    """Adds two numbers."""
    return left + right


@task(bind=True)
def count(self: Any, steps: int, pause: float = 0.0) -> dict[str, int]:
    """Says each step, as progress and as a line."""
    for step in range(1, steps + 1):
        self.progress(step, steps, f"step {step}")
        self.log(f"line {step}")
        time.sleep(pause)
    return {"steps": steps}


@task(bind=True, max_attempts=3, retry_backoff=0.1)
def stumble(self: Any, times: int) -> str:
    """Fails so many times before it succeeds."""
    if g.job.attempt <= times:
        raise RuntimeError(f"stumbled {g.job.attempt}")
    return "walked"


@task
def fail(reason: str) -> None:
    """Fails for good."""
    raise ValueError(reason)


@task(max_attempts=5)
def give_up() -> None:
    """Fails in a way that no further attempt would mend."""
    raise Permanent("there is no use")


@task
async def wait_a_little(seconds: float) -> str:
    """A task that is async."""
    await asyncio.sleep(seconds)
    return current_app.name


@task
def touch(path: str, seconds: float = 0.0) -> int:
    """Adds a line to a file when it starts, then takes its time."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()


@task
def repeat(text: str, when: datetime | None = None) -> dict[str, Any]:
    """Gives back what it was given, and of which type."""
    return {"text": text, "when": when, "type": type(when).__name__}


@task
def unprintable() -> object:
    """Its result is not JSON."""
    return object()
