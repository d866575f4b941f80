"""A body that is to stop gets its exception within its block, and nobody gets it afterwards."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from quart_app.celeryext import loops
from quart_app.interrupt import Cancelled, Interrupt


def outcome(body: Callable[[Interrupt], None]) -> str:
    """How a block of its own in another thread ends, and what comes after it."""

    def run() -> str:
        interrupt = Interrupt(loops.wake)
        try:
            with interrupt:
                body(interrupt)
        except Cancelled:
            interrupt.close()
            return "cancelled"
        fire_elsewhere(interrupt)
        sum(range(1_000))
        return "ended"

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(run).result(20)


def test_a_block_is_ended_and_what_follows_it_is_not() -> None:
    def heed(interrupt: Interrupt) -> None:
        fire_elsewhere(interrupt)
        sum(range(1_000))

    assert [outcome(heed), outcome(lambda _: None)] == ["cancelled", "ended"]


def test_it_is_not_fired_while_its_block_ends() -> None:
    def ending(interrupt: Interrupt) -> None:
        with interrupt._lock:
            fire_elsewhere(interrupt)
        sum(range(1_000))

    assert outcome(ending) == "ended"


def test_what_came_amid_the_end_of_a_block_does_not_come_again() -> None:
    def amid(interrupt: Interrupt) -> None:
        interrupt._lock.acquire()  # as when Cancelled comes before it is let go
        raise Cancelled

    assert outcome(amid) == "cancelled"


def test_a_loop_that_waits_is_ended_and_can_be_used_again() -> None:
    def asleep(interrupt: Interrupt) -> None:
        begun = threading.Event()

        def fire() -> None:
            begun.wait()
            interrupt.fire()

        firing = threading.Thread(target=fire)
        firing.start()

        async def sleep() -> None:
            asyncio.get_running_loop().call_later(0.1, begun.set)
            await asyncio.sleep(30)

        try:
            loops.wait(sleep(), contextvars.copy_context())
        finally:
            firing.join()
            assert loops.wait(asyncio.sleep(0, "well"), contextvars.copy_context()) == "well"

    assert outcome(asleep) == "cancelled"


def fire_elsewhere(interrupt: Interrupt) -> None:
    thread = threading.Thread(target=interrupt.fire)
    thread.start()
    thread.join()
