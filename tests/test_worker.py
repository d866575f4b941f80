"""Real workers: every pool, every way to end one, and what becomes of their jobs."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer
from redis import Redis

from quart_app import nodes, why
from quart_app.models import JobState, Node
from tasks.watch import FEW_TIMERS, Sweep
from tests import real
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until

MINE = ("-Q", "mine", "--concurrency=1")
WORKER = real.python("celery", "-A", "tasks", "worker", "--loglevel=info", *MINE)


@pytest.fixture
def nervous(clean: Place) -> dict[str, str]:
    """The environment of a worker whose jobs are given away soon."""
    return clean.env | {"JOB_LEASE": "1"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def online(ledger: Ledger) -> list[Node]:
    """The workers of these tests: one for all tests may run besides."""
    found = ledger.within(lambda s: nodes.online(s, "worker"))
    return [node for node in found if node.info["queues"] == ["mine"]]


def until_begun(marks: Path, times: int = 1) -> int:
    """The process of the task that began last."""
    until(lambda: marks.exists() and marks.read_text().endswith("\n"))
    lines = marks.read_text().split()
    assert len(lines) == times
    return int(lines[-1])


@pytest.mark.parametrize("pool", [["-P", "prefork"], ["-P", "threads"], ["-P", "solo"], ["-E"]])
def test_a_worker_runs_jobs_of_each_kind(
    ledger: Ledger, clean: Place, tmp_path: Path, pool: list[str]
) -> None:
    with real.worker(clean.env, tmp_path / "log", *MINE, *pool) as log:
        kinds = {"add": (1,), "wait_a_little": (0.01,), "count": (2,), "fail": ("so",), "where": ()}
        ids = [ledger.submit(name, *args, queue="mine") for name, args in kinds.items()]
        results: list[Any] = [ledger.ended(job_id).result for job_id in ids]
        until(lambda: len(online(ledger)) == 1)
    assert results[:4] == [2, "quart_app", {"steps": 2}, None]
    assert results[4][2] == "quart_app"
    assert "mingle" not in log.read_text()
    assert "events of group" not in log.read_text()


def test_gossip_mingle_and_heartbeat_are_off_without_flags(clean: Place, tmp_path: Path) -> None:
    with real.worker(clean.env, tmp_path / "log", *MINE, "-P", "solo", "--loglevel=debug") as log:
        (steps,) = [line for line in log.read_text().splitlines() if "Consumer: Building" in line]
    text = log.read_text()
    assert steps
    for step in ("Gossip", "Mingle", "Heart"):
        assert f"Consumer: Starting {step}" not in text


def test_a_job_whose_child_is_killed_runs_again_and_is_recorded_once(
    ledger: Ledger, nervous: dict[str, str], tmp_path: Path, stack: ExitStack
) -> None:
    stack.enter_context(real.worker(nervous, tmp_path / "log", *MINE))
    marks = tmp_path / "marks"
    job_id = ledger.submit("touch", str(marks), 1.0, queue="mine")
    os.kill(until_begun(marks), signal.SIGKILL)
    job = ledger.ended(job_id)
    assert (job.state, job.attempt, job.losses) == (JobState.SUCCEEDED, 2, 1)
    states = [event["state"] for event in ledger.events(job_id, "state")]
    assert states == ["queued", "running", "queued", "running", "succeeded"]


def test_an_attempt_that_was_given_away_records_nothing(
    ledger: Ledger, nervous: dict[str, str], tmp_path: Path, stack: ExitStack
) -> None:
    logs = [
        stack.enter_context(real.worker(nervous, tmp_path / name, *MINE, "-n", f"{name}@%h"))
        for name in ("one", "two")
    ]
    marks = tmp_path / "marks"
    job_id = ledger.submit("touch", str(marks), 0.5, queue="mine")
    child = until_begun(marks)
    os.kill(child, signal.SIGSTOP)
    result = ledger.ended(job_id, 40).result
    os.kill(child, signal.SIGCONT)
    gone = f"Job {job_id} ended or went to another attempt"
    until(lambda: any(gone in log.read_text() for log in logs))
    job = ledger.job(job_id)
    assert (job.result, job.attempt, len(ledger.events(job_id, "state"))) == (result, 2, 5)
    assert result != child


def test_a_job_whose_body_nothing_ends_is_cancelled_all_the_same(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    with real.worker(clean.env, tmp_path / "log", *MINE, "-P", "threads") as log:
        marks = tmp_path / "marks"
        job_id = ledger.submit("touch", str(marks), 28.0, queue="mine")
        until_begun(marks)
        ledger.cancel(job_id)
        assert ledger.ended(job_id, 30).state is JobState.CANCELLED
        until(lambda: f"Job {job_id} ended or went to another attempt" in log.read_text())
        assert ledger.ended(ledger.submit("add", 1, queue="mine")).state is JobState.SUCCEEDED
    assert ledger.job(job_id).state is JobState.CANCELLED
    last = ledger.events(job_id, "state")[-1]
    assert (last["state"], "left to itself" in last["error"]) == ("cancelled", True)


def test_workers_of_the_same_name_have_a_row_each(
    ledger: Ledger, clean: Place, tmp_path: Path, stack: ExitStack
) -> None:
    words = (*MINE, "-P", "solo", "-n", "same@here")
    with real.worker(clean.env, tmp_path / "one", *words):
        with real.worker(clean.env, tmp_path / "two", *words):
            until(lambda: len(online(ledger)) == 2)
        until(lambda: len(online(ledger)) == 1)
    until(lambda: not online(ledger))


def test_a_worker_that_is_asked_to_stop_finishes_its_job_first(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    with real.process(WORKER, clean.env, tmp_path / "log") as process:
        job_id = ledger.submit("touch", str(marks), 1.0, queue="mine")
        until_begun(marks)
        until(lambda: online(ledger))
        process.terminate()
        assert process.wait(15) == 0
    assert ledger.job(job_id).state is JobState.SUCCEEDED
    assert not online(ledger)


@pytest.mark.parametrize("direct_calls", ["true", "false"])
def test_what_a_worker_that_is_stopped_had_not_begun_runs_in_the_next(
    ledger: Ledger, clean: Place, tmp_path: Path, direct_calls: str
) -> None:
    env = clean.env | {"ALLOW_DIRECT_CALLS": direct_calls}
    going_on = tmp_path / "go on"
    going_on.touch()
    with real.process(WORKER, env, tmp_path / "log") as process:
        ledger.reached(ledger.submit("promise", str(going_on), queue="mine"), JobState.RUNNING)
        rest = [ledger.submit("add", 1, queue="mine") for _ in range(3)]
        with Redis.from_url(clean.redis_url) as redis:
            until(lambda: redis.llen("mine") == 2)
            assert redis.hlen("unacked") == (direct_calls == "true")
        process.terminate()
        until(lambda: "Warm shutdown" in (tmp_path / "log").read_text())
        going_on.unlink()
        assert process.wait(15) == 0
    assert {ledger.job(job_id).state for job_id in rest} == {JobState.QUEUED}
    with real.worker(env, tmp_path / "next", *MINE):
        assert {ledger.ended(job_id).state for job_id in rest} == {JobState.SUCCEEDED}


def test_a_worker_without_the_task_of_a_job_says_so_once_and_leaves_it_to_another(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    ignorant = clean.env | {"CELERY_IMPORTS": "tasks.scheduler"}
    with real.worker(ignorant, tmp_path / "log", *MINE) as log:
        job_ids = [ledger.submit("add", 1, queue="mine") for _ in range(20)]
        assert ledger.ended(ledger.submit("tasks.scheduler.send_sms", queue="mine"))
        until(lambda: online(ledger))
        assert ledger.within(lambda s: why.explain(s, job_ids[0])).reason == "unknown_task"
    assert log.read_text().count("this worker knows no task 'tests.sample_tasks.add'; is its") == 1
    assert "unregistered" not in log.read_text()
    with real.worker(clean.env, tmp_path / "other", *MINE):
        assert {ledger.ended(job_id).result for job_id in job_ids} == {2}


def test_a_broker_that_is_away_is_looked_for_at_a_steady_pace(clean: Place, tmp_path: Path) -> None:
    port, log = real.free_port(), tmp_path / "log"
    env = clean.env | {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    with real.process(WORKER, env, log):
        until(lambda: log.read_text().count("Trying again in") >= 3, 60)
        with real.redis_server(tmp_path, port):
            until(lambda: " ready." in log.read_text(), 60)
    waits = log.read_text().count("Trying again in")
    assert log.read_text().count("Trying again in 2.00 seconds") == waits


@pytest.mark.parametrize("part", ["worker", "beat"])
def test_without_a_redis_on_the_embedded_default_it_ends_with_one_line(
    tmp_path: Path, part: str
) -> None:
    ended = run(part, {"VAR_DIR": str(tmp_path)})
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip().splitlines()[-1] == (
        f"No Redis runs in {tmp_path}: start `python3 run.py` in this folder, or set REDIS_URL."
    )


def test_without_a_folder_to_write_in_a_worker_ends_with_one_line(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    var = tmp_path / "file" / "var"
    ended = run("worker", place.env | {"VAR_DIR": str(var), "REDIS_URL": place.redis_url})
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert ended.stderr.strip().splitlines()[-1] == (
        f"VAR_DIR = '{var}': expected a folder to read and write in ({var}/nodes: Not a directory)"
    )


@pytest.mark.parametrize("part", ["worker", "beat"])
def test_a_package_that_is_not_installed_is_named(tmp_path: Path, part: str) -> None:
    (tmp_path / "cronsim.py").write_text("raise ModuleNotFoundError(\"No module named 'cronsim'\")")
    ended = run(part, {"VAR_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == (
        "No module named 'cronsim': `python3 run.py migrate` installs what is missing."
    )


@pytest.mark.parametrize("part", ["worker", "beat"])
def test_without_its_tables_on_a_server_it_ends_with_one_line(place: Place, part: str) -> None:
    if place.name == "sqlite":
        pytest.skip("SQLite is upgraded as it is met")
    empty = place.env | {"DATABASE_URL": place.database_url.rpartition("/")[0] + "/mysql"}
    ended = run(part, empty)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "run `python3 run.py migrate`" in ended.stderr.strip().splitlines()[-1]


def run(part: str, env: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    words = real.python("celery", "-A", "tasks", part, "--loglevel=info")
    return subprocess.run(
        words, env=real.environment(env), cwd=real.ROOT, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip


def test_timers_that_were_cancelled_are_forgotten_and_the_others_go_off_in_order() -> None:
    rung: list[int] = []
    with closing(Hub(timer=Timer())) as hub:
        Sweep(hub)
        for number in (3, 1, 2):
            hub.call_later(number / 1000, rung.append, number)
        for _ in range(3 * FEW_TIMERS):
            hub.call_later(3600, rung.append, 0).cancel()
        assert until(lambda: next(hub.loop) or len(rung) == 3)
        assert rung == [1, 2, 3]
        assert len(hub.timer) <= FEW_TIMERS
