"""A Quart application with the bridge alone, no ledger: what a user of celeryext writes."""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from celery import signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from quart import Quart, current_app, g

from quart_app.celeryext import QuartCelery

app = Quart("plain")
url = os.environ.get("PLAIN_REDIS", "redis://127.0.0.1:1/0")
app.config.update(CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)
app.config["CELERY_RESULT_BACKEND_THREAD_SAFE"] = True  # else each greenlet makes connections
celery = QuartCelery(app).celery
logger = get_task_logger(__name__)
SOON = {"retry_backoff": 1, "retry_backoff_max": 1, "retry_jitter": False}


if noted := os.environ.get("PLAIN_LOOPS"):

    class NotingLoop(asyncio.SelectorEventLoop):
        """Leaves a line when it is made, and one when it is closed."""

        def __init__(self) -> None:
            super().__init__()
            self._note("made")

        def close(self) -> None:
            if not self.is_closed():
                self._note("closed")
            super().close()

        def _note(self, what: str) -> None:
            with Path(str(noted)).open("a") as file:
                file.write(f"{what} {os.getpid()}\n")

    asyncio.DefaultEventLoopPolicy._loop_factory = NotingLoop  # type: ignore[attr-defined]

if heard := os.environ.get("PLAIN_HEARD"):

    @signals.after_setup_logger.connect(weak=False)
    def listen(logger: logging.Logger, **_: Any) -> None:
        """A handler of one's own at the root, as an error tracker has one."""
        logger.addHandler(logging.FileHandler(str(heard)))


@celery.task
def add(left: int, right: int) -> int:
    return left + right


@celery.task
async def add_later(left: int, right: int) -> int:
    await asyncio.sleep(0.01)
    return left + right


@celery.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@celery.task
async def total_later(numbers: list[int]) -> int:
    await asyncio.sleep(0.01)
    return sum(numbers)


@celery.task
def look(value: int) -> list[Any]:
    """Where it runs, what lay in `g` before, and what lies there after others had their turn."""
    before, g.value = list(g), value
    time.sleep(0.02)
    return [current_app.name, before, g.value]


@celery.task
async def look_later(value: int) -> list[Any]:
    before, g.value = list(g), value
    await asyncio.sleep(0.02)
    return [current_app.name, before, g.value]


@celery.task(bind=True)
def who(self: Any) -> list[Any]:
    return [self.request.id, self.name]


@celery.task(bind=True)
async def who_later(self: Any) -> list[Any]:
    return [self.request.id, self.name]


@celery.task(bind=True, autoretry_for=(OSError,), max_retries=2, **SOON)
def stumble(self: Any) -> int:
    if self.request.retries < 1:
        raise OSError("not yet")
    return int(self.request.retries)


@celery.task(bind=True, autoretry_for=(OSError,), max_retries=2, **SOON)
async def stumble_later(self: Any) -> int:
    await asyncio.sleep(0)
    if self.request.retries < 1:
        raise OSError("not yet")
    return int(self.request.retries)


@celery.task(ignore_result=True)
def forget() -> str:
    return "forgotten"


@celery.task(ignore_result=True)
async def forget_later() -> str:
    return "forgotten"


@celery.task(acks_late=True)
def hold(folder: str) -> None:
    """Starts, and ends when it is told to."""
    (Path(folder) / "started").touch()
    while not (Path(folder) / "end").exists():
        time.sleep(0.02)


@celery.task(acks_late=True)
async def hold_later(folder: str) -> None:
    (Path(folder) / "started").touch()
    while not (Path(folder) / "end").exists():
        await asyncio.sleep(0.02)


@celery.task(soft_time_limit=1, time_limit=20)
def too_long() -> str:
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "never"


@celery.task(soft_time_limit=1, time_limit=20)
async def too_long_later() -> str:
    try:
        await asyncio.sleep(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "never"


@celery.task(soft_time_limit=1)
async def gives_in_later() -> None:
    await asyncio.sleep(30)


@celery.task(time_limit=1)
def far_too_long() -> None:
    time.sleep(30)


@celery.task(time_limit=1)
async def far_too_long_later() -> None:
    await asyncio.sleep(30)


@celery.task
def say(text: str) -> None:
    logger.info(text)


@celery.task
def own_loop() -> str:
    async def name() -> str:
        await asyncio.sleep(0.02)
        return current_app.name

    return asyncio.run(name())


@celery.task
async def pass_on(value: int) -> str:
    """Publishes another task from its own loop."""
    return str((await add.adelay(value, 1)).id)
