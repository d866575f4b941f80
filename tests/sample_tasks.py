"""Tasks that the tests run on a real worker."""

import asyncio
import logging
import math
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from celery.exceptions import Retry
from celery.utils.log import get_task_logger
from pydantic import AfterValidator, BaseModel, Field
from quart import current_app, g
from sqlalchemy import text as sql

from quart_app import jobs
from quart_app.errors import Permanent
from tasks.base import task


@task
def add(left: int, right: int = 1) -> int:
    """Adds two numbers."""
    return left + right


def _known(word: str) -> str:
    return {"good": word}[word]


@task
def picky(word: Annotated[str, AfterValidator(_known), Field(examples=["good"])]) -> str:
    """Checks its argument by what does not know how to say that something is wrong."""
    return word


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


@task(max_attempts=2, retry_backoff=0.01)
def chain_errors() -> None:
    """Fails by one error after another."""
    try:
        os.environ["THE FIRST"]
    except KeyError as error:
        raise RuntimeError("the second") from error


@task(max_attempts=2, retry_backoff=0.01)
async def chain_errors_async() -> None:
    """The same, in an event loop."""
    try:
        os.environ["THE FIRST"]
    except KeyError as error:
        raise RuntimeError("the second") from error


@task
def fall(left: int = 0) -> None:
    """Calls itself without an end, by way of others."""
    _fall_on(left)


def _fall_on(left: int) -> None:
    (_fall_on if left % 2 else _fall_back)(left + 1)


def _fall_back(left: int) -> None:
    _fall_on(left)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@task
def mumble() -> None:
    """Fails by an error that cannot be told."""
    raise Unspeakable


class Panic(BaseException):
    """As extensions written in Rust raise it."""


@task
def panic() -> None:
    """Fails by what is no Exception."""
    raise Panic("at the disco")


@task
async def panic_together() -> None:
    """The same, in a group of tasks."""

    async def panicking() -> None:
        raise Panic("at the disco")

    async with asyncio.TaskGroup() as group:
        group.create_task(panicking())


@task
async def wait_together(seconds: float) -> None:
    """Waits in a group of tasks."""
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(seconds))


@task(bind=True, max_attempts=2)
def put_off(self: Any, how: str) -> None:
    """Asks for its next attempt after a pause of some kind."""
    kinds = {"delta": timedelta(milliseconds=10), "word": "tomorrow", "far": 1e300, "nan": math.nan}
    raise Retry(None, None, kinds[how])


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


@task(time_limit=9.0, soft_time_limit=7)
def limited() -> None:
    """Has options that Celery writes into a message."""


@task(expires=5)
def hurried() -> None:
    """Would expire, were its message more than a doorbell."""


class Point(BaseModel):
    x: int
    y: float = 0.5


@task
def typed(when: datetime, point: Point, *, near: Annotated[int, Field(ge=1, le=9)] = 3) -> str:
    """Says of which types its arguments are."""
    return f"{type(when).__name__} {type(point).__name__} {type(near).__name__}"


class Order(BaseModel):
    """What somebody wants, and when."""

    item: str = Field(min_length=1, examples=["tea"])
    count: int = Field(1, ge=1)
    at: Point | None = None
    due: datetime | None = None


@task
def deliver(order: Order) -> dict[str, Any]:
    """Says what it was given, and of which type."""
    kinds = {name: type(getattr(order, name)).__name__ for name in ("at", "due")}
    return {"type": type(order).__name__, "item": order.item, "count": order.count, **kinds}


@task
def total(first: int, *others: int, factor: int = 1) -> int:
    """Takes any number of numbers."""
    return factor * sum((first, *others))


@task
def oddly_named(
    schema: str, json: int, copy: int, _x: int, model_config: int, self_: int = 0
) -> list[Any]:
    """Its parameters are called as methods of a pydantic model are."""
    return [schema, json, copy, _x, model_config, self_]


@task
def give(what: str) -> Any:
    """A result of the kind that is asked for."""
    kinds: dict[str, Any] = {"nan": float("nan"), "infinity": [float("inf")], "half": "\ud800"}
    kinds |= {"megabyte": "€" * 350_000, "too much": "x" * 5_000_000}
    return kinds[what]


@task
def complain(text: str) -> None:
    """Fails, with an error that is hard to keep."""
    raise RuntimeError(f"{text}\0\ud800" + "x" * 100_000)


@task(bind=True)
def obey(self: Any, path: str) -> str:
    """Goes on until it is cancelled."""
    Path(path).touch()
    while not self.cancelled:
        time.sleep(0.05)
    return "stopped"


@task
def pass_on(times: int, by: str = "delay") -> str:
    """Has another job made, from within."""
    return str(getattr(add, by)(*([times] if by == "delay" else [(times,)])).id)


@task
async def pass_on_at_once() -> str:
    """Would block its loop."""
    return str(add.delay(1).id)


@task
async def pass_on_in_a_thread() -> str:
    """Does not."""
    return str((await asyncio.to_thread(add.delay, 1)).id)


@task(bind=True, max_attempts=3)
def ask_again(self: Any, times: int, countdown: float = 0.05) -> str:
    """Asks for another attempt in Celery's way."""
    if self.request.retries < times:
        raise self.retry(exc=RuntimeError(f"not at {self.request.retries}"), countdown=countdown)
    return f"after {self.request.retries}"


@task(autoretry_for=(ConnectionError,), retry_backoff=0.05, max_retries=2)
def reconnect(path: str, kind: str = "ConnectionError") -> None:
    """Fails in one of two ways, of which Celery's option names one."""
    with Path(path).open("a") as file:
        file.write("tried\n")
    raise {"ConnectionError": ConnectionError, "ValueError": ValueError}[kind]("away")


@task(autoretry_for=(OSError,), retry_backoff=0.05, retry_kwargs={"max_retries": 1})
async def reconnect_later() -> None:
    """As `reconnect`, async."""
    raise OSError("away")


@task
async def give_itself_up() -> None:
    """Is cancelled from within."""
    raise asyncio.CancelledError


@task(queue="slow")
def on_the_slow_queue() -> str:
    """Goes to a queue of its own."""
    return "slowly"


@task
def anything(value: Any) -> Any:
    """Gives back whatever it was given."""
    return value


@task
def where() -> list[Any]:
    """The process and the thread it runs in."""
    return [os.getpid(), threading.current_thread().name, current_app.name]


@task
def spin(seconds: float) -> None:
    """Is busy for so long and never looks up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@task
async def sleep_on(seconds: float) -> None:
    """Sleeps in a loop."""
    await asyncio.sleep(seconds)


@task(bind=True)
def report_oddly(self: Any) -> str:
    """Says how far it is in ways that JSON does not know."""
    self.progress(float("nan"), float("inf"), "how far?")
    self.log("odd", level="\ud800")
    return "done"


@task
def carry() -> dict[str, str]:
    """Says, by two loggers and as its result, what travelled with it."""
    logging.getLogger("shop").warning("by a logger of any module")
    get_task_logger(__name__).warning("by the logger of Celery")
    return g.baggage.known()


@task
def carry_on() -> list[Any]:
    """What travelled with it, and a job of its own making."""
    return [g.baggage.known(), carry.delay().id]


@task
def carry_directly() -> str:
    """Makes a job by a message that only Celery knows."""
    return carry.apply_async(expires=60).id


@task(max_attempts=2)
def die(path: str, how: str = "process") -> None:
    """Ends its own process, or that of its worker, in a way that nothing in it can catch."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill({"process": os.getpid(), "worker": os.getppid()}[how], signal.SIGKILL)
    time.sleep(60)


@task(on_lost="fail")
def touch_once(path: str, seconds: float = 0.0) -> int:
    """As `touch`, never started again when its worker was lost."""
    return int(touch.run(path, seconds))


@task(time_limit=1, max_attempts=2, retry_backoff=0.1)
def overrun(path: str) -> None:
    """Takes longer than it may."""
    touch.run(path)
    while True:
        time.sleep(0.1)


@task(time_limit=1, max_attempts=2, retry_backoff=0.1)
def sleep_through(path: str) -> None:
    """Takes longer than it may, in a call that no exception ends in a thread."""
    touch.run(path, 26.0)


@task(max_attempts=1)
def go_wrong(how: str) -> None:
    """Ends in a way that would end a process."""
    if how == "exit":
        sys.exit(3)
    raise {"memory": MemoryError, "recursion": RecursionError}[how]("too much")


@task
def ignore_everything(path: str) -> None:
    """Goes on whatever is raised in it."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        with suppress(BaseException):
            time.sleep(60)


@task(bind=True)
def promise(self: Any, path: str = "", how: str = "") -> str:
    """Has a job made if it succeeds; while its file is there, it goes on."""
    self.at_success(jobs.submit, "tests.sample_tasks.add", args=[1])
    if how == "with a wrong argument":
        self.at_success(jobs.submit, "tests.sample_tasks.add", args=["one"])
    if how == "with a wrong statement":
        self.at_success(lambda session: session.execute(sql("SELECT nothing FROM jobs")))
    while path and Path(path).exists() and not self.cancelled:
        time.sleep(0.02)
    if how == "and fails":
        raise ValueError(how)
    return "kept"


@task(bind=True)
def talk(self: Any) -> str:
    """Says the same by its own means and by ordinary logging, among other things."""
    self.log("by itself")
    _talk()
    return "said"


@task
async def talk_later() -> str:
    """As `talk`, from a loop and a thread of it."""
    await asyncio.sleep(0)
    await asyncio.to_thread(_talk)
    return "said"


def _talk() -> None:
    logging.getLogger("shop").info("sold %d of %s", 3, "Größe 5")
    logging.getLogger("shop").debug("nobody wants to know")
    get_task_logger(__name__).warning("low on stock")
    logging.getLogger("sqlalchemy.engine").error("of the machinery")
    try:
        raise ValueError("no price")
    except ValueError:
        current_app.logger.exception("cannot sell")


@task
def babble(lines: int) -> None:
    """Logs so many lines, and one that cannot be written."""
    logging.getLogger("shop").info("%d of", "not a number")
    for number in range(lines):
        logging.getLogger("shop").info("line %d", number)
