"""Sending an SMS on a real worker: handed over once, whatever the other side does."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from quart_app import bulk, db, jobs, rescue, sms
from quart_app.models import Job, JobState, Message, MessageState
from tests import real
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until

SEND = "tasks.background.async_send_sms"
DUE = "tasks.scheduler.send_sms"
TO = "+8613800138000"


class Endpoint(ThreadingHTTPServer):
    """An HTTP service that does what the text asks for, and counts the calls of each text."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.texts: list[str] = []
        self.refusal = 400
        self.over = threading.Event()
        super().__init__(("127.0.0.1", port), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        self.server.texts.append(text)
        if text.startswith("hang"):
            self.server.over.wait(20)
            return
        self.send_response(self.server.refusal if text.startswith("refuse") else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture(scope="module")
def sender(place: Place, endpoint: Endpoint, tmp_path_factory: Any) -> Iterator[Any]:
    """A worker that hands messages to the endpoint; its process."""
    log = tmp_path_factory.mktemp("sender") / "log"
    url = f"json://user:hush@127.0.0.1:{endpoint.server_port}/?rto=3"
    env = place.env | {"SMS_PROVIDER": url, "JOB_LEASE": "1", "CELERY_WORKER_CONCURRENCY": "2"}
    words = real.python("celery", "-A", "tasks", "worker", "--loglevel=info", "-Q", "http")
    with real.process(words, env, log) as process:
        until(lambda: " ready." in log.read_text())
        yield process
    assert "hush" not in log.read_text()


def cancel_all(session: Session, job_id: str) -> None:
    bulk.CANCEL.verb(session, [job_id])


def message_of(ledger: Ledger, job_id: str) -> Message:
    found = select(Message).where(Message.job_id == job_id)
    return ledger.within(lambda s: s.scalars(found).one())


def sent(ledger: Ledger, text: str, queue: str = "http") -> tuple[Job, Message]:
    job = ledger.ended(ledger.submit(SEND, TO, text, queue=queue))
    return job, message_of(ledger, job.id)


def test_the_console_takes_a_message(ledger: Ledger, worker: Path) -> None:
    job, message = sent(ledger, "Hello 你好 👋", "celery")
    assert job.result == {"message": message.id, "state": "sent", "segments": 1}
    assert (message.state, message.provider) == (MessageState.SENT, "console")
    assert f"SMS {message.id} to +86138*****000" in worker.read_text()
    assert "Hello 你好" not in worker.read_text()


def test_a_message_is_handed_over_once(ledger: Ledger, sender: Any, endpoint: Endpoint) -> None:
    job, message = sent(ledger, "take this")
    assert (job.state, message.state) == (JobState.SUCCEEDED, MessageState.SENT)
    assert message.sent_at
    assert endpoint.texts.count("take this") == 1
    endpoint.texts.clear()


def test_a_refused_message_fails_its_job(ledger: Ledger, sender: Any, endpoint: Endpoint) -> None:
    job, message = sent(ledger, "refuse this")
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert message.state is MessageState.FAILED
    assert "the provider answered HTTP 400 Bad Request" in str(job.error)
    assert endpoint.texts.count("refuse this") == 1
    endpoint.texts.clear()


def test_what_was_refused_is_sent_by_a_retry_once_that_is_mended(
    ledger: Ledger, sender: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = sent(ledger, "refuse at first")
    assert job.state is JobState.FAILED
    monkeypatch.setattr(endpoint, "refusal", 200)
    ledger.within(lambda s: jobs.retry(s, job.id))
    assert ledger.ended(job.id).state is JobState.SUCCEEDED
    message = message_of(ledger, job.id)
    assert (message.state, message.error) == (MessageState.SENT, None)
    endpoint.texts.clear()


def test_a_message_whose_fate_is_unknown_is_never_sent_again(
    ledger: Ledger, sender: Any, endpoint: Endpoint
) -> None:
    job, message = sent(ledger, "hang on this")
    assert (job.state, message.state) == (JobState.FAILED, MessageState.UNKNOWN)
    ledger.within(lambda s: jobs.retry(s, job.id))
    again = ledger.ended(job.id)
    assert (again.state, again.attempt) == (JobState.FAILED, 2)
    assert f"message {message.id} is unknown" in str(again.error)
    assert endpoint.texts.count("hang on this") == 1
    endpoint.texts.clear()


def test_a_worker_that_is_killed_within_the_call_leaves_the_fate_unknown(
    ledger: Ledger, sender: Any, endpoint: Endpoint
) -> None:
    job_id = ledger.submit(SEND, TO, "hang and be killed", queue="http")
    until(lambda: "hang and be killed" in endpoint.texts)
    for child in children(sender.pid):
        os.kill(child, signal.SIGKILL)
    job = ledger.ended(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 2)
    assert message_of(ledger, job_id).state is MessageState.UNKNOWN
    assert endpoint.texts.count("hang and be killed") == 1
    endpoint.texts.clear()


@contextmanager
def handing_over(
    ledger: Ledger, place: Place, endpoint: Endpoint, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A worker of its own within the provider's call, and the job that it runs."""
    endpoint.texts.clear()
    url = f"json://127.0.0.1:{endpoint.server_port}/?rto=60"
    words = real.python("celery", "-A", "tasks", "worker", "-Q", "own", "--concurrency=1")
    env = place.env | {"SMS_PROVIDER": url, "JOB_LEASE": "3"}
    with real.process(words, env, log) as process:
        job_id = ledger.submit(SEND, TO, "hang", queue="own")
        until(lambda: endpoint.texts)
        assert message_of(ledger, job_id).state is MessageState.SENDING
        yield process, job_id
    assert endpoint.texts == ["hang"]
    endpoint.texts.clear()


def is_given_up(ledger: Ledger, job_id: str) -> bool:
    message = message_of(ledger, job_id)
    return (message.state, message.error) == (
        MessageState.UNKNOWN, "its job ended while it was being handed over",
    )  # fmt: skip


def test_a_job_cancelled_within_the_call_leaves_the_fate_unknown(
    ledger: Ledger, place: Place, endpoint: Endpoint, tmp_path: Path
) -> None:
    with handing_over(ledger, place, endpoint, tmp_path / "log") as (_, job_id):
        ledger.cancel(job_id)
        assert ledger.ended(job_id).state is JobState.CANCELLED
        assert is_given_up(ledger, job_id)


def test_so_does_one_whose_worker_is_killed_before_it_hears_of_that(
    ledger: Ledger, place: Place, endpoint: Endpoint, tmp_path: Path
) -> None:
    with handing_over(ledger, place, endpoint, tmp_path / "log") as (process, job_id):
        ledger.cancel(job_id)
        os.killpg(process.pid, signal.SIGKILL)
        assert ledger.ended(job_id).state is JobState.CANCELLED
        assert is_given_up(ledger, job_id)


@pytest.mark.parametrize("verb", [jobs.cancel, cancel_all], ids=["one", "many"])
def test_so_does_one_that_is_cancelled_when_its_worker_was_lost(
    ledger: Ledger, place: Place, endpoint: Endpoint, tmp_path: Path, verb: Any
) -> None:
    with handing_over(ledger, place, endpoint, tmp_path / "log") as (process, job_id):
        os.killpg(process.pid, signal.SIGKILL)
        ledger.reached(job_id, JobState.QUEUED)
        assert message_of(ledger, job_id).state is MessageState.SENDING
        ledger.within(lambda s: verb(s, job_id))
        assert is_given_up(ledger, job_id)


def test_so_does_one_that_fails_since_its_worker_was_lost_too_often(
    ledger: Ledger, place: Place, endpoint: Endpoint, tmp_path: Path
) -> None:
    with handing_over(ledger, place, endpoint, tmp_path / "log") as (process, job_id):
        ledger.change(job_id, losses=rescue.MOST_LOSSES - 1, max_attempts=1)
        os.killpg(process.pid, signal.SIGKILL)
        assert ledger.ended(job_id).state is JobState.FAILED
        assert is_given_up(ledger, job_id)


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def waits_after(ledger: Ledger, job_id: str, attempt: int) -> bool:
    job = ledger.job(job_id)
    return (job.state, job.attempt) == (JobState.RETRYING, attempt)


def test_a_provider_that_is_away_is_tried_three_times(
    ledger: Ledger, place: Place, tmp_path: Path, closed: str
) -> None:
    env = place.env | {"SMS_PROVIDER": f"json://{closed}"}
    with real.worker(env, tmp_path / "log", "-P", "solo", "-Q", "away"):
        job_id = ledger.submit(SEND, TO, "nobody is there", queue="away")
        for attempt in (1, 2):
            until(partial(waits_after, ledger, job_id, attempt))
            assert message_of(ledger, job_id).state is MessageState.WAITING
            ledger.change(job_id, available_at=db.now())
        job = ledger.ended(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert job.error == "NotReached: the provider could not be reached: no connection"
    message = message_of(ledger, job_id)
    # Nobody has it: a retry by hand may hand it over.
    assert message.state is MessageState.FAILED
    assert str(message.error).startswith("its job ended before it was handed over: the provider")


def test_each_due_message_gets_one_job_though_two_runs_meet(ledger: Ledger, worker: Path) -> None:
    past, later = db.now(-1), db.now(3600)
    ids = [scheduled(ledger, f"number {n}", past) for n in range(30)]
    scheduled(ledger, "not yet", later)
    runs = [ledger.submit(DUE) for _ in range(2)]
    results: Any = [ledger.ended(run).result for run in runs]
    assert sum(result["started"] for result in results) == 30
    started = [job_id for result in results for job_id in result["jobs"]]
    assert {ledger.ended(job_id).state for job_id in started} == {JobState.SUCCEEDED}
    sending = [job for job in ledger.jobs() if job.task == SEND]
    assert sorted(job.id for job in sending) == sorted(started)
    assert len(set(started)) == len(ids)


def scheduled(ledger: Ledger, text: str, at: Any, to: str = TO) -> str:
    message_id = ledger.within(lambda s: sms.schedule(s, to, text, datetime.now(UTC)).id)
    due = update(Message).where(Message.id == message_id).values(send_at=at, to=to)
    ledger.within(lambda s: s.execute(due))
    return message_id


def test_a_message_that_cannot_be_sent_does_not_hold_up_the_others(
    ledger: Ledger, worker: Path
) -> None:
    bad = scheduled(ledger, "to nobody", db.now(-2), to="+0")
    scheduled(ledger, "to somebody", db.now(-1))
    run: Any = ledger.ended(ledger.submit(DUE))
    assert {**run.result, "jobs": len(run.result["jobs"])} == {
        "due": 2, "started": 1, "refused": 1, "jobs": 1,
    }  # fmt: skip
    lines = [event["message"] for event in ledger.events(run.id, "log")]
    assert lines[0].startswith(f"Message {bad} cannot be sent: kwargs.to: expected a phone number")
    assert lines[1] == "2 due: 1 given to a job each, 1 refused."
    assert ledger.within(lambda s: s.get_one(Message, bad)).state is MessageState.FAILED


def test_when_nothing_is_due_it_says_so(ledger: Ledger, worker: Path) -> None:
    run = ledger.ended(ledger.submit(DUE))
    assert run.result == {"due": 0, "started": 0, "refused": 0, "jobs": []}
