"""Chaos' own parts: it sees what it is there to see, and leaves nothing running."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from bench.chaos import findings, tables
from bench.chaos.clocks import COMPILER, Clocks
from bench.chaos.crew import Crew, Part
from bench.chaos.findings import Findings
from quart_app import attempts
from quart_app.models import JobState
from tests.book import ADD, Book
from tests.real import ROOT, until

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
WITH_A_CHILD = [sys.executable, "-c", "import os, time; os.fork(); time.sleep(300)"]


class Past(Book):
    """A ledger in which one job, accepted and run, is all that happened."""

    job_id: str

    def say(self, sql: str) -> None:
        self(lambda session: session.execute(text(sql), {"id": self.job_id}))

    def findings(self) -> Findings:
        return self(findings.of_the_ledger)


@pytest.fixture
def past(book: Book) -> Iterator[Past]:
    past = Past(book.app)
    past(lambda session: tables.metadata.create_all(session.connection()))
    past.job_id = past.submit().id
    past(run_once, past.job_id)
    past(tables.keep_accepted, [(past.job_id, datetime.now(UTC))])
    yield past
    past(lambda session: tables.metadata.drop_all(session.connection()))


def run_once(session: Session, job_id: str) -> None:
    assert attempts.claim(session, job_id, ADD, "w", 15)
    tables.started(session, job_id, 1)
    attempts.succeed(session, job_id, 1, None)
    tables.worked(session, job_id, 1)


def test_a_ledger_as_it_should_be_breaks_no_invariant(past: Past) -> None:
    found = past.findings()
    assert (found.succeeded, found.lost, found.twice, found.broken) == (1, 0, 0, {})


@pytest.mark.parametrize(
    ("happened", "broken"),
    [
        ("DELETE FROM jobs WHERE id = :id", "accepted, and not ended"),
        ("UPDATE jobs SET state = 'queued' WHERE id = :id", "accepted, and not ended"),
        ("INSERT INTO effects SELECT * FROM effects", "more than one effect"),
        ("DELETE FROM effects", "succeeded without effect"),
        ("UPDATE effects SET attempt = 2", "an effect of an attempt that did not succeed"),
        ("UPDATE jobs SET attempt = 2", "ended by an attempt that was not its last"),
        ("INSERT INTO starts SELECT * FROM starts", "one attempt started twice"),
        (
            """UPDATE events SET data = '{"state":"running","attempt": 2}' WHERE seq = 2""",
            "attempts not in order",
        ),
        ("UPDATE jobs SET max_attempts = 0", "more attempts than it may have"),
        ("DELETE FROM events WHERE seq = 2", "a gap in its events"),
        ("UPDATE jobs SET last_seq = 4", "a gap in its events"),
        (
            """UPDATE events SET data = '{"state":"failed","attempt": 1}' WHERE seq = 2""",
            "not one last event, at the end",
        ),
        ("DELETE FROM events WHERE seq = 3", "not one last event, at the end"),
        (
            "UPDATE jobs SET state = 'running', lease_until = '2026-01-01 00:00:00'",
            "runs, ten seconds after its lease",
        ),
        (
            "UPDATE jobs SET state = 'queued', available_at = '2026-01-01 00:00:00'",
            "due for half a minute, and overlooked",
        ),
    ],
)
def test_each_thing_that_must_never_be_is_seen(past: Past, happened: str, broken: str) -> None:
    past.say(happened)
    assert past.findings().broken[broken] == [past.job_id]


def test_the_time_between_two_starts_of_a_job_is_seen(past: Past) -> None:
    job_id = past.submit(args=[2]).id
    past(attempts.claim, job_id, ADD, "w", 15)
    past(attempts.postpone, job_id, 1, "once more", 0)
    past.set(past.job(job_id), state=JobState.QUEUED)
    past(attempts.claim, job_id, ADD, "w", 15)
    seconds, job = past.findings().recovery
    assert (0 < seconds < 20, job) == (True, job_id)


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path)
    crew.start()
    yield crew
    crew.stop()


def state_of(pid: int | None) -> str:
    """R, S, T …, or nothing for a process that is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def is_back(part: Part, former: int | None) -> Callable[[], bool]:
    return lambda: part.pid is not None and part.pid != former


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestACrew:
    def test_starts_again_what_was_killed(self, crew: Crew) -> None:
        part = crew.add("part", SLEEP, {})
        former = part.pid
        assert crew.kill("part", down=0.1)
        until(is_back(part, former))
        assert crew.exits == {}

    def test_counts_what_ends_by_itself(self, crew: Crew) -> None:
        part = crew.add("part", [sys.executable, "-c", ""], {})
        until(is_back(part, part.pid))
        assert crew.exits["part"] >= 1

    def test_freezes_a_process_for_a_while(self, crew: Crew) -> None:
        part = crew.add("part", SLEEP, {})
        assert part.pid
        assert crew.freeze([part.pid], 3)
        until(lambda: state_of(part.pid) == "T")
        assert not crew.freeze([part.pid], 3)
        until(lambda: state_of(part.pid) == "S")

    def test_heals_at_once_when_asked_to(self, crew: Crew) -> None:
        frozen, dead = crew.add("frozen", SLEEP, {}), crew.add("dead", SLEEP, {})
        assert frozen.pid
        former = dead.pid
        crew.freeze([frozen.pid], 300)
        crew.kill("dead", down=300)
        crew.heal()
        until(is_back(dead, former))
        until(lambda: state_of(frozen.pid) == "S")

    def test_leaves_nothing_of_a_process_that_has_children(self, tmp_path: Path) -> None:
        crew = Crew(tmp_path)
        crew.start()
        part = crew.add("part", WITH_A_CHILD, {})
        (child,) = until(part.children)
        os.kill(child, signal.SIGSTOP)
        crew.kill("part", down=300)
        crew.stop()
        until(lambda: state_of(child) in ("", "Z"))


# In a process of its own, since the mount would else be there for all that follows.
FULL = """
import pathlib, sys
from bench.chaos.disk import Disk, NotPermitted
folder = pathlib.Path(sys.argv[1])
try:
    disk = Disk(folder)
except NotPermitted:
    sys.exit("not permitted")
(folder / "first").write_bytes(b"x" * 100_000)
disk.fill()
try:
    (folder / "second").write_bytes(b"x" * 1_000_000)
except OSError as error:
    print(error.strerror)
disk.free()
(folder / "third").write_bytes(b"x" * 1_000_000)
print((folder / "first").stat().st_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_is_full_for_a_while_and_seen_by_nobody_else(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    if done.stderr.strip() == "not permitted":
        pytest.skip("only root mounts a disk")
    assert done.stdout.splitlines() == ["No space left on device", "100000"]
    assert list(tmp_path.iterdir()) == []


TOLD = """
import datetime, time
print(time.monotonic(), time.time(), datetime.datetime.now().timestamp(), flush=True)
input()
time.sleep(0.1)
print(time.monotonic(), time.time(), datetime.datetime.now().timestamp(), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux" or not COMPILER, reason="preloads what it compiles")
def test_a_clock_is_set_for_one_process_while_its_time_goes_on(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "clocks")
    with subprocess.Popen(
        [sys.executable, "-c", TOLD], env=os.environ | clocks.env("one"), text=True, stdin=-1,
        stdout=-1,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        before = [float(word) for word in process.stdout.readline().split()]
        clocks.set("one", -7200)
        print(file=process.stdin, flush=True)
        after = [float(word) for word in process.stdout.readline().split()]
    passed, *set_back = (there - here for here, there in zip(before, after, strict=True))
    assert 0 < passed < 60
    assert all(-7200 <= seconds < -7140 for seconds in set_back)
