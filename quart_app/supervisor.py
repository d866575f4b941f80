"""Runs parts as real processes: started in order, restarted when they end, never left behind."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

POLL = 0.05
STOP_BUDGET = 25.0  # seconds for the graces of all stages together
STEADY = 60.0  # seconds after which a part counts as sound again
EARLY_EXITS = 5
LONGEST_LINE = 4 * 1024 * 1024
# A part must not be able to move the cursor or to forge another part's line.
CONTROLS = {n: f"\\x{n:02x}" for n in (*range(9), *range(10, 32), *range(127, 160))}

# The shell reports its process group before it becomes the part, and holds the reaper's pipe open
# until it has: there is no moment in which a part lives that the reaper does not know.
LAUNCH = 'echo "+$$ {last:d}" >&0; exec "$@" </dev/null'

# Reads "+group signal" and "-group"; at the end of its input it ends what is still listed. A
# program of its own in a session of its own, because it has to outlive this process.
REAPER = r"""
import os, signal, sys, time

def attempt(call, *arguments):
    try:
        return call(*arguments)
    except OSError:
        return False

def kill(sessions):
    for group in sessions:
        attempt(os.killpg, group, signal.SIGKILL)
    listed = os.listdir("/proc") if os.path.isdir("/proc/1") else os.popen("ps -Ao pid=")
    for pid in (int(word) for word in listed if word.strip().isdigit()):
        if attempt(os.getsid, pid) in sessions:
            attempt(os.kill, pid, signal.SIGKILL)

for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
last = {}
for line in sys.stdin:
    group = int(line[1:].split()[0])
    if line[0] == "+":
        last[group] = int(line.split()[1])
    else:
        last.pop(group, None)
        kill({group})
gentle = {group for group in last if last[group] != signal.SIGKILL}
for group in gentle:
    attempt(os.killpg, group, last[group])
kill(last.keys() - gentle)
deadline = time.monotonic() + 2
while time.monotonic() < deadline and any(attempt(os.killpg, g, 0) is None for g in gentle):
    time.sleep(0.02)
kill(gentle)
"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process to run. Times are seconds.

    `grace` lies between SIGTERM and SIGKILL; `last_signal` is what it gets first when the
    supervisor itself was killed, SIGKILL two seconds later; log lines that contain one of the
    `quiet` texts are left out.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    patience: float = 30.0
    grace: float = 10.0
    pass_fds: Sequence[int] = ()
    quiet: Sequence[str] = ()
    last_signal: signal.Signals = signal.SIGKILL


async def supervise(
    stages: Sequence[Sequence[Part]],
    *,
    on_ready: Callable[[], None],
    say: Callable[[str], object] = print,
) -> int:
    """Run the stages, each when the one before is ready; stop them in reverse. Main thread only.

    Returns 0 after SIGINT, SIGTERM or SIGHUP, and 1 when a part could not be started.
    """
    loop = asyncio.get_running_loop()
    crew = _Crew([stage for stage in stages if stage], say)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, crew.interrupt, number)
    loop.add_signal_handler(signal.SIGCHLD, crew.look)
    try:
        return await crew.run(on_ready)
    finally:
        for number in (*numbers, signal.SIGCHLD):
            loop.remove_signal_handler(number)
        crew.reaper.close()
        crew.tell("stopped")


class _Crew:
    """All parts together: which are up, and whether it is to end."""

    def __init__(self, stages: Sequence[Sequence[Part]], say: Callable[[str], object]) -> None:
        self.stages = stages
        self.say = say
        self.up: list[list[_Keeper]] = []
        self.ending: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reaper = _Reaper()

    async def run(self, on_ready: Callable[[], None]) -> int:
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
            self.tell("stopping (Ctrl-C again kills at once)")
            self.ending.set_result(0)
        elif number is signal.SIGINT:
            for keeper in itertools.chain(*self.up):
                keeper.stop(0)

    def look(self) -> None:
        children = [keeper.child for keeper in itertools.chain(*self.up)]
        for child in children:
            child.look()
        self.reaper.look(children)

    def give_up(self, reason: str) -> None:
        if not self.ending.done():
            self.tell(reason)
            self.ending.set_result(1)

    def tell(self, line: str) -> None:
        _speak(lambda: self.say(line))

    async def _start(self, on_ready: Callable[[], None]) -> None:
        prefixes = _prefixes([part.name for part in itertools.chain(*self.stages)])
        for stage in self.stages:
            keepers = [_Keeper(part, self, next(prefixes)) for part in stage]
            self.up.append(keepers)
            await asyncio.gather(*(keeper.become_ready() for keeper in keepers))
            if self.ending.done():
                return
        _speak(on_ready)

    async def _stop(self) -> None:
        longest = sum(max(part.grace for part in stage) for stage in self.stages)
        share = STOP_BUDGET / max(longest, STOP_BUDGET)
        for keepers in reversed(self.up):
            for keeper in keepers:
                keeper.stop(keeper.part.grace * share)
            patience = max(keeper.part.grace for keeper in keepers) * share + 1
            await asyncio.wait({keeper.task for keeper in keepers}, timeout=patience)


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
        self.child.process.terminate()
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
            pause = next(pauses)
            self.crew.tell(f"{how}; starting it again in {pause:g} s")
            if await _within(pause, self.stopping):
                break
            self.child = self._launch()

    def _launch(self) -> "_Child":
        return _Child(self.part, self.crew, self.prefix)


class _Child:
    """One process of a part, what it prints and what it leaves."""

    def __init__(self, part: Part, crew: _Crew, prefix: str) -> None:
        self.part, self.crew, self.prefix = part, crew, prefix
        self.exited, self.silent = asyncio.Event(), asyncio.Event()
        self.unfinished = b""
        self.output, output = os.pipe()
        launch = LAUNCH.format(last=part.last_signal)
        self.process = subprocess.Popen(  # noqa: S603  # the caller's own words, as a list
            ["/bin/sh", "-c", launch, part.name, *part.argv],
            stdin=crew.reaper.writing,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **part.env},
            pass_fds=part.pass_fds,
            start_new_session=True,
        )
        os.close(output)
        asyncio.get_running_loop().add_reader(self.output, self._read)

    def look(self) -> None:
        if self.process.poll() is not None:
            self.exited.set()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """How it ended, in words; by then nothing of it is left."""
        await self.exited.wait()
        with suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.crew.reaper.forget(self.process.pid)
        await _within(0.5, self.silent)
        self._close()
        return _how(self.process.returncode)

    def _read(self) -> None:
        data = os.read(self.output, 65536)
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        if len(self.unfinished) > LONGEST_LINE:
            lines.append(self.unfinished)
            self.unfinished = b""
        for line in lines:
            self._show(line)
        if not data:
            self._close()

    def _close(self) -> None:
        if self.silent.is_set():
            return
        self.silent.set()
        asyncio.get_running_loop().remove_reader(self.output)
        os.close(self.output)
        if self.unfinished:
            self._show(self.unfinished)

    def _show(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r").translate(CONTROLS)
        if not any(word in text for word in self.part.quiet):
            self.crew.tell(self.prefix + text)


class _Reaper:
    """The process that ends what this one leaves when it is killed."""

    def __init__(self) -> None:
        # Its end stays open here too: should it die, no part is hurt by writing to it.
        self.reading, self.writing = os.pipe()
        self.process = self._spawn()

    def look(self, children: Sequence[_Child]) -> None:
        if self.process.poll() is None:
            return
        for child in children:
            if child.process.poll() is None:
                self._tell(f"+{child.process.pid} {child.part.last_signal:d}")
        self.process = self._spawn()

    def forget(self, group: int) -> None:
        self._tell(f"-{group}")

    def close(self) -> None:
        os.close(self.writing)
        os.close(self.reading)
        self.process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # nothing of it comes from outside
            [sys.executable, "-I", "-S", "-c", REAPER],
            stdin=self.reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def _tell(self, line: str) -> None:
        os.write(self.writing, line.encode() + b"\n")


def _prefixes(names: Sequence[str]) -> Iterator[str]:
    width = max(map(len, names), default=0)
    colours = itertools.cycle((36, 33, 32, 35, 34, 31))
    plain = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    for name, colour in zip(names, colours, strict=False):
        prefix = f"{name:<{width}} | "
        yield prefix if plain else f"\x1b[{colour}m{prefix}\x1b[0m"


def _speak(words: Callable[[], object]) -> None:
    try:
        words()
        sys.stdout.flush()
    except OSError:  # nobody listens any more, which is no reason for the parts to end
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _pauses() -> Iterator[float]:
    return itertools.chain((0.5, 1, 2, 4, 8, 16), itertools.repeat(30))


def _how(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"


async def _within(seconds: float, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
