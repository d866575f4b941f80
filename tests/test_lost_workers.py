"""Workers that are lost, with the lease they have by default: what they held goes on at once."""

import base64
import json
import os
import pickle
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from quart_app.doorbell import Ring, message, redis_payload
from quart_app.models import Job, JobState
from tasks.watch import MOST_STARVED
from tests import real
from tests.conftest import Place
from tests.ledger import FINAL, Ledger
from tests.real import until

WORDS = ("-Q", "mine", "--concurrency=2")
ARGV = real.python("celery", "-A", "tasks", "worker", "--loglevel=info", *WORDS)
#: Seconds within which a lost job is to be back; far less than its lease of 15.
SOON = 12


@pytest.fixture
def worker(clean: Place, tmp_path: Path) -> Iterator[Path]:
    """A worker of its own for the test; the file of its log."""
    with real.worker(clean.env, tmp_path / "log", *WORDS) as log:
        yield log


@contextmanager
def rescued_within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def begun(marks: Path, times: int = 1) -> int:
    """The process of the task that began last."""
    until(lambda: marks.exists() and len(marks.read_text().split("\n")) == times + 1)
    return int(marks.read_text().split()[-1])


def states(ledger: Ledger, job: Job) -> list[str]:
    return [event["state"] for event in ledger.events(job.id, "state")]


def test_a_job_whose_process_is_killed_runs_again_at_once(
    ledger: Ledger, worker: Path, tmp_path: Path
) -> None:
    job_id = ledger.submit("touch", str(tmp_path / "marks"), 1.0, queue="mine")
    os.kill(begun(tmp_path / "marks"), signal.SIGKILL)
    with rescued_within(SOON):
        begun(tmp_path / "marks", times=2)
    job = ledger.ended(job_id)
    assert (job.state, job.attempt, job.losses) == (JobState.SUCCEEDED, 2, 1)
    assert states(ledger, job) == ["queued", "running", "queued", "running", "succeeded"]


def lost_with_its_worker(ledger: Ledger, place: Place, folder: Path, seconds: float) -> str:
    """A job of so many seconds whose worker is killed, with its pool, while it runs."""
    with real.process(ARGV, place.env, folder / "log") as process:
        job_id = ledger.submit("touch", str(folder / "marks"), seconds, queue="mine")
        begun(folder / "marks")
        os.killpg(process.pid, signal.SIGKILL)
    return job_id


def test_what_a_killed_worker_ran_goes_on_at_once_in_another(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    job_id = lost_with_its_worker(ledger, clean, tmp_path, 1.0)
    with rescued_within(SOON):
        ledger.reached(job_id, JobState.QUEUED)
    with real.worker(clean.env, tmp_path / "log", *WORDS):
        assert ledger.ended(job_id).state is JobState.SUCCEEDED


def test_a_worker_alone_on_its_machine_sees_to_one_that_was_killed(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    job_id = lost_with_its_worker(still, clean, tmp_path, 30.0)
    with real.worker(clean.env, tmp_path / "its log", "-Q", "other"):
        until(lambda: still.job(job_id).state is JobState.QUEUED, SOON)


def test_what_must_run_once_at_most_fails_when_its_worker_is_lost(
    ledger: Ledger, worker: Path, tmp_path: Path
) -> None:
    job_id = ledger.submit("touch_once", str(tmp_path / "marks"), 30.0, queue="mine")
    os.kill(begun(tmp_path / "marks"), signal.SIGKILL)
    job = ledger.ended(job_id, SOON)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "not to be run again" in str(job.error)


def test_a_job_that_kills_its_process_fails_and_the_others_run(
    ledger: Ledger, worker: Path, tmp_path: Path
) -> None:
    poison = [ledger.submit("die", str(tmp_path / "marks"), queue="mine") for _ in range(2)]
    good = [ledger.submit("add", 1, queue="mine") for _ in range(20)]
    assert {ledger.ended(job_id).state for job_id in good} == {JobState.SUCCEEDED}
    for job_id in poison:
        job = ledger.ended(job_id, 60)
        assert (job.state, job.attempt) == (JobState.FAILED, 3)
        assert "its process died under it" in str(job.error)


def test_a_job_over_its_time_limit_is_tried_again_and_then_fails(
    ledger: Ledger, worker: Path, tmp_path: Path
) -> None:
    job_id = ledger.submit("overrun", str(tmp_path / "marks"), queue="mine")
    job = ledger.ended(job_id)
    assert (job.state, job.attempt, job.losses) == (JobState.FAILED, 2, 0)
    assert job.error == "TimeLimitExceeded: it ran longer than 1 s"


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_time_limit_holds_in_a_pool_without_processes(
    ledger: Ledger, clean: Place, tmp_path: Path, pool: str
) -> None:
    with real.worker(clean.env, tmp_path / "log", "-Q", "mine", "-P", pool):
        late = ledger.submit("overrun", str(tmp_path / "marks"), queue="mine")
        job = ledger.ended(late)
        assert (job.state, job.attempt, job.losses) == (JobState.FAILED, 2, 0)
        assert job.error == "TimeLimitExceeded: it ran longer than 1 s"
        assert ledger.ended(ledger.submit("add", 1, queue="mine")).state is JobState.SUCCEEDED


def test_over_its_time_limit_a_body_that_nothing_ends_fails_its_job_at_once(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    with real.worker(clean.env, tmp_path / "log", "-Q", "mine", "-P", "threads") as log:
        job_id = ledger.submit("sleep_through", str(tmp_path / "marks"), queue="mine")
        job = ledger.ended(job_id, 40)
        until(lambda: f"Job {job_id} ended or went to another attempt" in log.read_text())
    error = "it ran longer than it may; its body does not stop, and is left to itself"
    assert (job.state, job.attempt, job.error) == (JobState.FAILED, 1, error)
    assert ledger.job(job_id).state is JobState.FAILED
    assert f"Job {job_id} does not stop: its body is left to itself." in log.read_text()


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("exit", "RuntimeError: the task would have ended its process: exit(3)"),
        ("memory", "MemoryError: too much"),
        ("recursion", "RecursionError: too much"),
    ],
)
def test_what_would_end_a_process_fails_the_job_alone(
    ledger: Ledger, worker: Path, how: str, error: str
) -> None:
    job = ledger.ended(ledger.submit("go_wrong", how, queue="mine"))
    assert (job.state, job.error, job.losses) == (JobState.FAILED, error, 0)
    assert ledger.ended(ledger.submit("add", 1, queue="mine")).state is JobState.SUCCEEDED
    assert "WorkerLostError" not in worker.read_text()


def test_a_body_that_ignores_everything_ends_cancelled(
    ledger: Ledger, worker: Path, clean: Place, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job_id = ledger.submit("ignore_everything", str(marks), queue="mine")
    pid = begun(marks)
    ledger.cancel(job_id)
    assert ledger.ended(job_id, 40).state is JobState.CANCELLED
    until(lambda: not real.is_alive(pid))
    assert "does not stop: its process is killed" in worker.read_text()


def test_a_process_that_hangs_is_replaced_when_its_job_was_given_away(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    nervous = clean.env | {"JOB_LEASE": "2"}
    with real.worker(nervous, tmp_path / "log", "-Q", "mine", "--concurrency=1"):
        job_id = ledger.submit("touch", str(tmp_path / "marks"), 0.5, queue="mine")
        os.kill(begun(tmp_path / "marks"), signal.SIGSTOP)
        ledger.reached(job_id, JobState.QUEUED)
        assert ledger.ended(job_id, 60).state is JobState.SUCCEEDED


def test_processes_that_are_told_to_stop_give_back_their_jobs(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    """As systemd does it by default: every process of the service gets the signal."""
    with real.process(ARGV, clean.env, tmp_path / "log") as process:
        job_id = ledger.submit("touch", str(tmp_path / "marks"), 60.0, queue="mine")
        begun(tmp_path / "marks")
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(15)
        job = ledger.job(job_id)
    assert (job.state, job.losses) == (JobState.QUEUED, 0)
    assert "was stopped" in str(job.error)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_pool_without_processes_gives_back_its_job_too(
    ledger: Ledger, clean: Place, tmp_path: Path, pool: str
) -> None:
    """Told to stop at once, as Ctrl-C does when it comes again."""
    with real.process([*ARGV, "--pool", pool], clean.env, tmp_path / "log") as process:
        job_id = ledger.submit("touch", str(tmp_path / "marks"), 60.0, queue="mine")
        begun(tmp_path / "marks")
        process.send_signal(signal.SIGQUIT)
        job = ledger.reached(job_id, JobState.QUEUED)
        if pool == "solo":
            process.wait(15)
    assert (job.state, job.losses) == (JobState.QUEUED, 0)
    assert "was stopped" in str(job.error)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("text", [b"{", b"\xff\x00", b"[]", b"null", b"{}", b"5", b"[" * 100_000])
def test_what_is_no_message_ends_no_worker(
    ledger: Ledger, worker: Path, clean: Place, text: bytes
) -> None:
    with Redis.from_url(clean.redis_url) as redis:
        redis.lpush("mine", text)
        until(lambda: not redis.llen("mine"))
    job_id = ledger.submit("add", 1, queue="mine")
    assert ledger.ended(job_id).state in FINAL
    assert "starts itself again" not in worker.read_text()


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(path: Path) -> dict[str, Any]:
    body = base64.b64encode(pickle.dumps([[Evil(path)], {}, {}])).decode()
    return {"content-type": "application/x-python-serialize", "body": body}


def huge(_: Path) -> dict[str, Any]:
    body = json.dumps([["x" * 50_000_000], {}, {}]).encode()
    return {"body": base64.b64encode(body).decode()}


def of_no_task(_: Path) -> dict[str, Any]:
    return {"headers": {"task": "no.such.task", "id": str(uuid.uuid4())}}


@pytest.mark.parametrize("change", [pickled, huge, of_no_task])
def test_a_message_that_is_not_to_be_trusted_runs_nothing_and_leaves_no_row(
    ledger: Ledger, worker: Path, clean: Place, tmp_path: Path, change: Callable[..., Any]
) -> None:
    ring = Ring(str(uuid.uuid4()), "tests.sample_tasks.repeat", "mine", 0)
    celery = ledger.app.extensions["celery"]
    sound = json.loads(redis_payload(message(celery, ring), str(uuid.uuid4())))
    with Redis.from_url(clean.redis_url) as redis:
        redis.lpush("mine", json.dumps(sound | change(tmp_path / "made")))
        until(lambda: not redis.llen("mine"))
    job_id = ledger.submit("add", 1, queue="mine")
    assert ledger.ended(job_id).state is JobState.SUCCEEDED
    assert [job.id for job in ledger.jobs()] == [job_id]
    assert not (tmp_path / "made").exists()
    assert "starts itself again" not in worker.read_text()


def test_a_worker_that_gets_nothing_though_some_waits_starts_itself_again(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    deaf = clean.env | {"CELERY_IMPORTS": real.TASKS + ",tests.deaf_worker"}
    with real.worker(deaf, tmp_path / "log", *WORDS) as log:
        job_id = ledger.submit("add", 1, queue="mine")
        assert ledger.ended(job_id, 60).state is JobState.SUCCEEDED
        assert log.read_text().count("This worker starts itself again.") == 1


def test_a_solo_worker_that_is_at_work_gets_no_more_and_goes_on(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    with real.worker(clean.env, tmp_path / "log", *WORDS, "--pool=solo") as log:
        first = ledger.submit("touch", str(tmp_path / "marks"), MOST_STARVED + 3, queue="mine")
        rest = [ledger.submit("add", 1, queue="mine") for _ in range(3)]
        for job_id in (first, *rest):
            job = ledger.ended(job_id, 60)
            assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        assert "starts itself again" not in log.read_text()


def test_a_worker_whose_main_loop_breaks_starts_itself_again(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    broken = clean.env | {"CELERY_IMPORTS": real.TASKS + ",tests.broken_worker"}
    with real.worker(broken, tmp_path / "log", *WORDS) as log:
        job_id = ledger.submit("add", 1, queue="mine")
        assert ledger.ended(job_id, 60).state is JobState.SUCCEEDED
        assert "Unrecoverable error: AttributeError" in log.read_text()


def test_a_worker_that_starts_itself_again_leaves_no_zombies(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    broken = clean.env | {"CELERY_IMPORTS": real.TASKS + ",tests.broken_worker"}
    (clean.var / "was-broken").unlink(missing_ok=True)
    with real.process(ARGV, broken, tmp_path / "log") as worker:
        ledger.ended(ledger.submit("add", 1, queue="mine"), 60)
        assert "starts itself again" in (tmp_path / "log").read_text()
        until(lambda: "Z" not in states_of_children(worker.pid))


def states_of_children(pid: int) -> list[str]:
    told = subprocess.run(["ps", "-A", "-o", "ppid=,stat="], capture_output=True, check=True)
    found = [line.split() for line in told.stdout.decode().splitlines()]
    return [state[0] for parent, state in found if int(parent) == pid]
