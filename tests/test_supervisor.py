"""The supervisor, with real processes: order, readiness, restarts, stopping, and nothing left."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quart_app import supervisor
from quart_app.children import Part
from quart_app.supervisor import supervise

HERE = Path(__file__).parent
PYTHON = [sys.executable, "-S", "-c"]
SLEEP = "import time; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); {SLEEP}"
# A child of its own in the same group, and one that has made a group of its own.
FAMILY = f"""
import os, sys
for own in (False, True):
    if not os.fork():
        own and os.setpgid(0, 0)
        os.write(1, b'pid %d\\n' % os.getpid())
        break
else:
    os.write(1, b'pid %d\\n' % os.getpid())
{SLEEP}
"""
LEADER_ENDS = f"""
import os, sys
if os.fork():
    sys.exit(3)
os.write(1, b'pid %d\\n' % os.getpid())
{SLEEP}
"""
UP = """
import asyncio, sys
from quart_app.children import Part
from quart_app.supervisor import supervise
from quart_app.voice import Voice
async def ready(): return True
async def greet(): voice.say("all ready")
def part(name, code, **more):
    return Part(name=name, argv=[sys.executable, "-S", "-c", code], ready=ready, **more)
with Voice() as voice:
    asyncio.run(supervise(STAGES, on_ready=greet, say=voice.say))
"""


async def always() -> bool:
    return True


async def never() -> bool:
    return False


def part(name: str, code: str = SLEEP, **options: Any) -> Part:
    return Part(**{"name": name, "argv": [*PYTHON, code], "ready": always, **options})


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class Run:
    """One `supervise` in this process, what it said, and its end."""

    def __init__(self, *stages: list[Part]) -> None:
        self.lines: list[str] = []
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(
            supervise(stages, on_ready=self._greet, say=self.lines.append)
        )

    async def _greet(self) -> None:
        self.ready.set()

    def said(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    def pids(self) -> list[int]:
        return [int(line.split()[-1]) for line in self.said("| pid ")]

    async def interrupt(self, number: signal.Signals = signal.SIGINT) -> int:
        os.kill(os.getpid(), number)
        return await self.task


@pytest.fixture
async def run() -> AsyncIterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*stages: list[Part]) -> Run:
        runs.append(Run(*stages))
        return runs[-1]

    yield start
    for one in runs:
        one.task.cancel()
        await asyncio.wait({one.task})


class Up:
    """A supervisor in a process of its own, which a test may kill; it prints to a file."""

    def __init__(self, log: Path, stages: str, out: int | None = None) -> None:
        code = UP.replace("STAGES", stages)
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdout=out or file, cwd=HERE.parent
            )

    def pids(self) -> list[int]:
        lines = self.log.read_text().splitlines()
        return [int(line.split()[-1]) for line in lines if "| pid " in line]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    running: list[Up] = []

    def start(stages: str, out: int | None = None) -> Up:
        running.append(Up(tmp_path / "log", stages, out))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()


def tell_and_wait(word: str) -> str:
    stop = f"signal.signal(signal.SIGTERM, lambda *_: (print('{word} ends'), sys.exit()))"
    return f"import signal, sys, time; {stop}; print('{word} runs'); {SLEEP}"


async def test_stages_start_in_order_and_stop_in_reverse(run: Callable[..., Run]) -> None:
    one = run([part("a", tell_and_wait("a"))], [part("b", tell_and_wait("b"))])
    await until(lambda: one.said("a runs") and one.said("b runs"))
    assert await one.interrupt() == 0
    assert [line for line in one.lines if "ends" in line] == ["b | b ends", "a | a ends"]
    assert one.lines[-1] == "stopped"


async def test_a_stage_waits_until_the_one_before_is_ready(run: Callable[..., Run]) -> None:
    gate = asyncio.Event()

    async def ready() -> bool:
        return gate.is_set()

    one = run([part("a", tell_and_wait("a"), ready=ready)], [part("b", tell_and_wait("b"))])
    await until(lambda: one.said("a runs"))
    assert not one.said("b runs")
    assert not one.ready.is_set()
    gate.set()
    await until(lambda: one.said("b runs"))
    await asyncio.wait_for(one.ready.wait(), 20)


async def test_a_killed_part_is_restarted_after_a_growing_pause(run: Callable[..., Run]) -> None:
    one = run([part("a", FAMILY.replace("(False, True)", "()"))])
    await until(lambda: len(one.pids()) == 1)
    os.kill(one.pids()[-1], signal.SIGKILL)
    await until(lambda: len(one.pids()) == 2)
    os.kill(one.pids()[-1], signal.SIGKILL)
    await until(lambda: len(one.pids()) == 3)
    assert one.said("a was ended by SIGKILL; starting it again in 0.5 s")
    assert one.said("a was ended by SIGKILL; starting it again in 1 s")


async def test_a_part_that_the_system_cannot_start_now_is_started_later(
    run: Callable[..., Run],
) -> None:
    one = run([part("web", f"import os; print('pid', os.getpid()); {SLEEP}")])
    await until(lambda: len(one.pids()) == 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # there is no other file to be had
        os.kill(one.pids()[0], signal.SIGKILL)
        await until(lambda: one.said("web could not be started (Too many open files)"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: len(one.pids()) == 2)
    assert await one.interrupt() == 0


async def test_sigterm_stops_it_as_ctrl_c_does(run: Callable[..., Run]) -> None:
    one = run([part("a", FAMILY)])
    await until(lambda: len(one.pids()) == 3)
    assert await one.interrupt(signal.SIGTERM) == 0
    await until(lambda: not any(map(alive, one.pids())))


async def test_a_stubborn_part_is_killed_at_its_grace(run: Callable[..., Run]) -> None:
    one = run([part("a", STUBBORN, grace=0.6)])
    await until(lambda: one.said("deaf"))
    began = time.monotonic()
    assert await one.interrupt() == 0
    assert 0.6 <= time.monotonic() - began < 8


async def test_a_second_ctrl_c_kills_at_once(run: Callable[..., Run]) -> None:
    one = run([part("a", STUBBORN)], [part("b", STUBBORN)])
    await until(lambda: len(one.said("deaf")) == 2)
    os.kill(os.getpid(), signal.SIGINT)
    await until(lambda: one.said("stopping"))
    began = time.monotonic()
    assert await one.interrupt() == 0
    assert time.monotonic() - began < 8


async def test_all_graces_together_fit_the_budget(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_BUDGET", 1.0)
    one = run(*([part(name, STUBBORN, grace=60)] for name in ("a", "b")))
    await until(lambda: len(one.said("deaf")) == 2)
    began = time.monotonic()
    assert await one.interrupt() == 0
    assert 1.0 <= time.monotonic() - began < 8


async def test_a_part_that_ends_takes_what_it_left_with_it(run: Callable[..., Run]) -> None:
    one = run([part("a", LEADER_ENDS)])
    await until(lambda: one.said("a exited with code 3; starting it again"))
    await until(lambda: one.pids() and not alive(one.pids()[0]))


async def test_a_part_never_ready_ends_it_with_one_line(run: Callable[..., Run]) -> None:
    one = run([part("a")], [part("slow", ready=never, patience=0.3)])
    assert await one.task == 1
    assert one.lines == ["slow was not ready within 0.3 s", "stopped"]
    assert not one.ready.is_set()


async def test_five_early_exits_end_it_after_its_last_log_lines(run: Callable[..., Run]) -> None:
    one = run([part("bad", "print('why'); raise SystemExit(2)", ready=never)])
    assert await one.task == 1
    assert len(one.said("bad | why")) == 5
    assert one.lines[-2] == "bad exited with code 2, 5 times before it was ready"


async def test_a_program_that_is_not_there_is_named(run: Callable[..., Run]) -> None:
    one = run([part("a", argv=["no-such-program"], ready=never)])
    await until(lambda: one.said("a exited with code 127"))
    assert one.said("no-such-program")


async def test_a_long_line_comes_through_whole(run: Callable[..., Run]) -> None:
    one = run([part("a", f"print('x' * 1_000_000); {SLEEP}")])
    await until(lambda: one.lines)
    assert one.lines[0] == "a | " + "x" * 1_000_000


async def test_control_characters_and_quiet_lines_do_not(run: Callable[..., Run]) -> None:
    code = f"print('hush now'); print('\\x1b[2Jred\\r'); {SLEEP}"
    one = run([part("a", code, quiet=["hush"])])
    await until(lambda: one.lines)
    assert one.lines == ["a | \\x1b[2Jred"]


async def test_descriptors_and_environment_reach_the_part(run: Callable[..., Run]) -> None:
    reading, writing = os.pipe()
    code = f"import os; os.write({writing}, os.environ['WORD'].encode())"
    run([part("a", code, env={"WORD": "hello"}, pass_fds=[writing])])
    assert await asyncio.to_thread(os.read, reading, 10) == b"hello"
    os.close(reading)
    os.close(writing)


async def test_sigkill_of_the_supervisor_leaves_no_process(up: Callable[..., Up]) -> None:
    one = up(f"[[part('a', {FAMILY!r})], [part('b', {FAMILY!r})]]")
    await until(lambda: len(one.pids()) == 6)
    pids = {*one.pids(), *children(one.process.pid)}
    assert len(pids) == 7
    one.process.kill()
    await until(lambda: not any(map(alive, pids)))


async def test_a_gentle_part_gets_sigterm_before_sigkill(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    note = tmp_path / "note"
    end = f"lambda *_: (open({str(note)!r}, 'w'), sys.exit())"
    code = f"import signal, sys; signal.signal(15, {end}); print('pid 1'); {SLEEP}"
    one = up(f"[[part('a', {code!r}, gentle=True)]]")
    await until(one.pids)
    one.process.kill()
    await until(note.exists)


async def test_a_killed_reaper_is_replaced(up: Callable[..., Up]) -> None:
    one = up(f"[[part('a', {FAMILY!r})]]")
    await until(lambda: len(one.pids()) == 3)
    (reaper,) = set(children(one.process.pid)) - set(one.pids())
    os.kill(reaper, signal.SIGKILL)
    await until(lambda: set(children(one.process.pid)) - {reaper, *one.pids()})
    one.process.kill()
    await until(lambda: not any(map(alive, one.pids())))


async def test_a_reader_that_went_away_hurts_no_part(up: Callable[..., Up], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    one = up(f"[[part('a', {chatter(tmp_path)!r})]]", out=writing)
    os.close(writing)
    assert os.read(reading, 5)
    os.close(reading)
    await until(lambda: grows(tmp_path / "note"))
    one.process.terminate()
    assert await asyncio.to_thread(one.process.wait, 8) == 0


async def test_a_reader_that_stops_reading_holds_up_nothing(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    one = up(f"[[part('a', {chatter(tmp_path)!r})]]", out=writing)
    os.close(writing)
    await until(lambda: grows(tmp_path / "note", by=200_000))
    pids = children(one.process.pid)
    one.process.terminate()
    assert await asyncio.to_thread(one.process.wait, 8) == 0
    assert not any(map(alive, pids))
    os.close(reading)


async def test_a_part_that_takes_its_time_to_end_is_named(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PROMPT", 0.1)
    one = run([part("a", STUBBORN, grace=1), part("b")])
    await until(lambda: one.said("deaf"))
    assert await one.interrupt() == 0
    assert one.said("waiting for a, 1 s at most")


async def test_a_killed_supervisor_is_outlived_by_no_stopped_part(up: Callable[..., Up]) -> None:
    one = up(f"[[part('a', {FAMILY!r})]]")
    await until(lambda: len(one.pids()) == 3)
    for pid in one.pids():
        os.kill(pid, signal.SIGSTOP)
    one.process.kill()
    await until(lambda: not any(map(alive, one.pids())))


def chatter(folder: Path) -> str:
    """Prints 200 bytes at a time for ever, and adds as many to the file `note`."""
    write = f"note = open({str(folder / 'note')!r}, 'a', buffering=1)"
    return f"import time; {write}\nwhile True: print('x' * 199); note.write('x' * 199 + '\\n')"


def grows(path: Path, by: int = 20) -> bool:
    """Whether the file has more than when it was first looked at."""
    size = path.stat().st_size if path.exists() else 0
    first = _sizes.setdefault(path, size)
    return size > first + by


_sizes: dict[Path, int] = {}


def children(pid: int) -> list[int]:
    """The direct ones, the reaper among them."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
