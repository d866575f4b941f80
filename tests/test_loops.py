"""What is async runs to its end in a thread, and what blocks holds up neither loop nor exit."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from quart_app.celeryext import loops
from quart_app.celeryext.threads import Daemons
from tests import real


def wait(work: Coroutine[Any, Any, Any]) -> Any:
    return loops.wait(work, contextvars.copy_context())


def after(seconds: float, raised: BaseException) -> None:
    """Has an error break into the loop from outside, as a signal's handler raises it."""

    def stop() -> None:
        raise raised

    asyncio.get_running_loop().call_later(seconds, stop)


async def test_a_thread_whose_loop_runs_has_another_do_it() -> None:
    async def add() -> int:
        await asyncio.sleep(0)
        return 3

    assert wait(add()) == 3


def test_what_breaks_in_is_raised_where_the_body_waits() -> None:
    async def clean_up() -> str:
        after(0.01, KeyboardInterrupt("now"))
        try:
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
        except KeyboardInterrupt as error:
            return f"cleaned up {error}"
        return "never"

    assert wait(clean_up()) == "cleaned up now"


def test_a_body_that_was_broken_into_may_use_a_timeout_after_it() -> None:
    async def go_on() -> str:
        after(0.01, KeyboardInterrupt())
        with suppress(KeyboardInterrupt):
            await asyncio.sleep(60)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "timed out"
        return "never"

    assert wait(go_on()) == "timed out"


def test_the_loop_of_a_thread_is_closed_with_it() -> None:
    async def mine() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with ThreadPoolExecutor(1) as thread:
        first, second = (thread.submit(wait, mine()).result() for _ in range(2))
        assert first is second
        assert not first.is_closed()
    assert first.is_closed()


LEFT_OPEN = """
import asyncio, contextvars
from quart_app.celeryext import loops
loops.wait(asyncio.sleep(0), contextvars.copy_context())
"""
NO_ANSWER = """
import asyncio, sys
from quart import Quart
from quart_app.celeryext import QuartCelery
app = Quart("x")
app.config["CELERY_BROKER_URL"] = f"redis://127.0.0.1:{sys.argv[1]}/0"


@QuartCelery(app).celery.task
def task() -> None:
    pass


try:
    asyncio.run(task.aapply_async(deadline=0.1))
except TimeoutError:
    print("gave up")
"""


def test_the_loop_of_a_process_is_closed_with_it() -> None:
    assert "unclosed event loop" not in real.script(LEFT_OPEN).stderr


def test_a_broker_that_does_not_answer_keeps_no_process_from_ending() -> None:
    with real.listener() as port:
        assert real.script(NO_ANSWER, str(port)).stdout == "gave up\n"


async def test_what_fails_in_a_daemon_fails_here() -> None:
    def fail() -> None:
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        await asyncio.wrap_future(Daemons(1).submit(fail))


async def test_what_was_given_up_before_its_turn_is_never_called() -> None:
    daemons, called = Daemons(1), []
    release, first = blocking(daemons)
    second = daemons.submit(lambda: called.append(2))
    assert second.cancel()
    release()
    await asyncio.wrap_future(first)
    await asyncio.wrap_future(daemons.submit(lambda: called.append(3)))
    assert called == [3]


def blocking(daemons: Daemons) -> tuple[Callable[[], None], Any]:
    """Takes the one thread, until it is released."""
    held = threading.Event()
    return held.set, daemons.submit(held.wait)
