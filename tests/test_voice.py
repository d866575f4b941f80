"""What `up` says, on real pipes: in order, to its end, and never at the cost of the speaker."""

import os
import re
import threading
from collections.abc import Iterator
from io import FileIO

import pytest

from quart_app import voice
from quart_app.voice import Voice, prefixes

Pipe = tuple[FileIO, FileIO]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    with FileIO(reading) as source, FileIO(writing, "w") as sink:
        yield source, sink


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    with Voice(pipe[1].fileno()) as one:
        for number in range(1000):
            one.say(f"line {number} 你好")
    pipe[1].close()
    assert pipe[0].readall().decode().splitlines() == [
        f"line {number} 你好" for number in range(1000)
    ]


def test_many_threads_may_speak(pipe: Pipe) -> None:
    with Voice(pipe[1].fileno()) as one:
        speakers = [threading.Thread(target=one.say, args=["x" * 50]) for _ in range(50)]
        for speaker in speakers:
            speaker.start()
        for speaker in speakers:
            speaker.join()
    pipe[1].close()
    assert pipe[0].readall().decode() == ("x" * 50 + "\n") * 50


def test_what_nobody_reads_is_dropped_and_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "_MOST_BYTES", 1_000_000)
    with Voice(pipe[1].fileno()) as one:
        for _ in range(5000):
            one.say("x" * 999)
        reader = threading.Thread(target=lambda: found.append(pipe[0].readall().decode()))
        found: list[str] = []
        reader.start()
    pipe[1].close()
    reader.join()
    dropped = [int(number) for number in re.findall(r"^\((\d+) lines were", found[0], re.MULTILINE)]
    assert dropped
    assert sum(dropped) + found[0].count("x" * 999) == 5000


def test_the_end_does_not_wait_for_a_reader_for_ever(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "_PATIENCE", 0.1)
    with Voice(pipe[1].fileno()) as one:
        one.say("x" * 1_000_000)
    assert pipe[0].read(3) == b"xxx"
    pipe[0].close()  # lets the thread go


def test_a_reader_that_went_away_is_no_fault(pipe: Pipe) -> None:
    pipe[0].close()
    with Voice(pipe[1].fileno()) as one:
        one.say("a")
        one.say("b")


def test_a_pipe_that_does_not_block_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe[1].fileno(), False)
    with Voice(pipe[1].fileno()) as one:
        one.say("x" * 300_000)
        assert len(pipe[0].read(10)) == 10
        left = 300_001 - 10
        while left:
            left -= len(pipe[0].read(left))


def test_names_are_aligned_and_without_colour_off_a_terminal() -> None:
    assert list(prefixes(["web", "worker"])) == ["web    | ", "worker | "]
