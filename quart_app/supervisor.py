"""Runs parts as real processes: started in order, restarted when they end, never left behind."""

import asyncio
import itertools
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from quart_app.children import Child, Part
from quart_app.reaper import Reaper
from quart_app.voice import prefixes

POLL = 0.05
STOP_BUDGET = 25.0  # seconds for the graces of all stages together
STEADY = 60.0  # seconds after which a part counts as sound again
EARLY_EXITS = 5
PROMPT = 4.0  # seconds within which a part that ends needs no explanation


async def supervise(
    stages: Sequence[Sequence[Part]],
    *,
    on_ready: Callable[[], Awaitable[None]],
    say: Callable[[str], object],
) -> int:
    """Run the stages, each when the one before is ready; stop them in reverse. Main thread only.

    `say` takes each line of output and must return at once. Returns 0 after SIGINT, SIGTERM or
    SIGHUP, and 1 when a part could not be started.
    """
    crew = _Crew([stage for stage in stages if stage], say)
    try:
        with _listening(crew):
            return await crew.run(on_ready)
    finally:
        crew.reaper.close()
        say("stopped")


@contextmanager
def _listening(crew: "_Crew") -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, crew.interrupt, number)
    loop.add_signal_handler(signal.SIGCHLD, crew.look)
    try:
        yield
    finally:
        for number in (*numbers, signal.SIGCHLD):
            loop.remove_signal_handler(number)


class _Crew:
    """All parts together: which are up, and whether it is to end."""

    def __init__(self, stages: Sequence[Sequence[Part]], say: Callable[[str], object]) -> None:
        self.stages = stages
        self.say = say
        self.up: list[list[_Keeper]] = []
        self.ending: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reaper = Reaper()

    async def run(self, on_ready: Callable[[], Awaitable[None]]) -> int:
        starting = asyncio.create_task(self._start(on_ready))
        try:
            either: set[asyncio.Future[Any]] = {starting, self.ending}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self.ending.done():
                starting.result()
            return await self.ending
        finally:
            starting.cancel()
            await self._stop()

    def interrupt(self, number: signal.Signals) -> None:
        if not self.ending.done():
            self.say("stopping (Ctrl-C again kills at once)")
            self.ending.set_result(0)
        elif number is signal.SIGINT:
            for keeper in itertools.chain(*self.up):
                keeper.stop(0)

    def look(self) -> None:
        children = [keeper.child for keeper in itertools.chain(*self.up)]
        for child in children:
            child.look()
        self.reaper.look({one.process.pid: one.first_signal for one in children if one.runs})

    def give_up(self, reason: str) -> None:
        if not self.ending.done():
            self.say(reason)
            self.ending.set_result(1)

    async def _start(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        names = prefixes([part.name for part in itertools.chain(*self.stages)])
        for stage in self.stages:
            keepers = [_Keeper(part, self, next(names)) for part in stage]
            self.up.append(keepers)
            await asyncio.gather(*(keeper.become_ready() for keeper in keepers))
            if self.ending.done():
                return
        await on_ready()

    async def _stop(self) -> None:
        longest = sum(max(part.grace for part in stage) for stage in self.stages)
        share = STOP_BUDGET / max(longest, STOP_BUDGET)
        for keepers in reversed(self.up):
            for keeper in keepers:
                keeper.stop(keeper.part.grace * share)
            await asyncio.wait({keeper.task for keeper in keepers}, timeout=PROMPT)
            if slow := [keeper for keeper in keepers if not keeper.task.done()]:
                await self._wait_for(slow, share)

    async def _wait_for(self, slow: Sequence["_Keeper"], share: float) -> None:
        patience = max(keeper.part.grace for keeper in slow) * share
        names = " and ".join(keeper.part.name for keeper in slow)
        self.say(f"waiting for {names}, {patience:.0f} s at most")
        await asyncio.wait({keeper.task for keeper in slow}, timeout=patience + 1)


class _Keeper:
    """One part: its process, and the next one when that has ended."""

    def __init__(self, part: Part, crew: _Crew, prefix: str) -> None:
        self.part, self.crew, self.prefix = part, crew, prefix
        self.was_ready = False
        self.stopping = asyncio.Event()
        self.child = self._launch()
        self.task = asyncio.create_task(self._keep())

    async def become_ready(self) -> None:
        try:
            async with asyncio.timeout(self.part.patience):
                while not await self.part.ready():  # noqa: ASYNC110  # another process's state
                    await asyncio.sleep(POLL)
            self.was_ready = True
        except TimeoutError:
            self.crew.give_up(f"{self.part.name} was not ready within {self.part.patience:g} s")

    def stop(self, grace: float) -> None:
        self.stopping.set()
        self.child.terminate()
        asyncio.get_running_loop().call_later(grace, self.child.kill)

    async def _keep(self) -> None:
        pauses = _pauses()
        for exits in itertools.count(1):
            began = time.monotonic()
            how = f"{self.part.name} {await self.child.ended()}"
            if self.stopping.is_set():
                break
            if exits >= EARLY_EXITS and not self.was_ready:
                self.crew.give_up(f"{how}, {exits} times before it was ready")
                break
            if time.monotonic() - began >= STEADY:
                pauses = _pauses()
            if await self._restarted(how, pauses):
                break

    async def _restarted(self, how: str, pauses: Iterator[float]) -> bool:
        """False once it runs again, however often the system refuses; True if it is to stop."""
        while True:
            pause = next(pauses)
            self.crew.say(f"{how}; starting it again in {pause:g} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
                return True
            try:
                self.child = self._launch()
                return False
            except OSError as error:  # no memory or no process to be had now
                how = f"{self.part.name} could not be started ({error.strerror})"

    def _launch(self) -> Child:
        return Child(self.part, self.crew.reaper, lambda line: self.crew.say(self.prefix + line))


def _pauses() -> Iterator[float]:
    return itertools.chain((0.5, 1, 2, 4, 8, 16), itertools.repeat(30))
