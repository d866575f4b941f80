"""What a running job says: kept in order, bounded, and never at the cost of the job."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import update

from quart_app import attempts, db, jobs
from quart_app.models import Job
from quart_app.publisher import CHANNEL
from quart_app.reporter import Reporter, Run, plain
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until


@pytest.fixture
def still(clean: Place) -> Iterator[Ledger]:
    app = clean.app(JOB_LEASE=1.5)
    yield Ledger(app)
    app.extensions["publisher"].close()


@pytest.fixture
def run(still: Ledger) -> Iterator[Run]:
    """An attempt that has just begun."""
    reporter: Reporter = still.app.extensions["reporter"]
    run = reporter.start(claimed(still))
    yield run
    reporter.end(run)


@contextmanager
def announced(place: Place, run: Run) -> Iterator[Iterator[str]]:
    """What is said of the run on Redis from now on; empty for a second without anything."""
    with Redis.from_url(place.redis_url) as redis, redis.pubsub() as follower:
        follower.subscribe(CHANNEL + run.job_id)
        assert follower.get_message(timeout=20)
        messages = iter(lambda: follower.get_message(timeout=1) or {"data": b""}, None)
        yield (message["data"].decode() for message in messages)


def claimed(ledger: Ledger) -> Job:
    job_id = ledger.submit("add", 1, queue="nowhere")
    claim: Any = (job_id, "tests.sample_tasks.add", "a worker", 1.5)
    return ledger.within(lambda s: attempts.claim(s, *claim)) or ledger.job(job_id)


def test_lines_are_kept_in_the_order_they_were_said(still: Ledger, run: Run) -> None:
    for number in range(50):
        run.log(f"line {number}", "info")
    until(lambda: len(still.events(run.job_id, "log")) == 50)
    said = [event["message"] for event in still.events(run.job_id, "log")]
    assert said == [f"line {number}" for number in range(50)]


def test_the_lease_is_kept_while_the_job_runs(still: Ledger, run: Run) -> None:
    first: Any = still.job(run.job_id).lease_until
    until(lambda: (still.job(run.job_id).lease_until or first) > first)


def test_progress_is_announced_at_once_and_kept_soon(still: Ledger, run: Run, place: Place) -> None:
    with announced(place, run) as frames:
        run.progress(1, 3, "one")
        until(lambda: "one" in next(frames))
    until(lambda: still.job(run.job_id).progress == {"current": 1, "total": 3, "message": "one"})


def test_progress_is_announced_while_the_database_keeps_others_waiting(
    still: Ledger, run: Run, place: Place
) -> None:
    with announced(place, run) as frames, still.app.extensions["db"].session() as held:
        held.execute(update(Job).values(priority=1))
        run.log("has to wait", "info")
        until(run.lock.locked)
        run.progress(1, 3, "goes by")
        until(lambda: "goes by" in next(frames), 5)
        assert run.lock.locked()
    until(lambda: still.events(run.job_id, "log"))


def test_the_newest_progress_is_announced_however_fast_they_come(run: Run, place: Place) -> None:
    with announced(place, run) as frames:
        for number in range(1_000):
            run.progress(number, 999, "on")
        until(lambda: '"current": 999' in next(frames))


def test_saying_much_costs_the_job_nothing(still: Ledger, run: Run) -> None:
    began = time.monotonic()
    for number in range(20_000):
        run.progress(number, 20_000, "on")
    assert time.monotonic() - began < 1
    until(lambda: (still.job(run.job_id).progress or {}).get("current") == 19_999)


def test_only_so_many_lines_are_kept(still: Ledger, run: Run) -> None:
    for _ in range(10_100):
        run.log("again", "info")
    assert len(run._lines) <= 10_000
    assert run._lines[-1].message == "Only the first 10000 lines of this job are kept."


@pytest.mark.parametrize(
    ("said", "kept"),
    [("a\0b", "a\ufffdb"), ("\ud800", "?"), ("你好 👋", "你好 👋"), ("x" * 9_000, "x" * 8_192)],
)
def test_what_is_said_is_bounded_and_can_be_stored(said: str, kept: str) -> None:
    assert plain(said) == kept


def test_an_attempt_hears_that_it_is_to_stop(still: Ledger, run: Run) -> None:
    still.within(lambda s: jobs.cancel(s, run.job_id))
    assert until(lambda: run.cancelled)


def test_a_long_lease_does_not_put_off_that_a_job_is_to_stop(clean: Place) -> None:
    ledger = Ledger(clean.app(JOB_LEASE=600.0))
    run = ledger.app.extensions["reporter"].start(claimed(ledger))
    ledger.within(lambda s: jobs.cancel(s, run.job_id))
    until(lambda: run.cancelled, 20)
    ledger.app.extensions["reporter"].end(run)
    ledger.app.extensions["publisher"].close()


def test_an_attempt_whose_job_was_given_away_hears_of_it(still: Ledger, run: Run) -> None:
    still.change(run.job_id, attempt=2)
    assert until(lambda: run.lost)


def test_a_job_goes_on_while_redis_is_away(clean: Place) -> None:
    ledger = Ledger(clean.app(REDIS_URL="redis://127.0.0.1:1/0", JOB_LEASE=1.5))
    run = ledger.app.extensions["reporter"].start(claimed(ledger))
    run.progress(1, 1, "all")
    run.log("said", "info")
    until(lambda: ledger.job(run.job_id).progress and ledger.events(run.job_id, "log"))
    ledger.app.extensions["reporter"].end(run)
    ledger.app.extensions["publisher"].close()


def test_the_reporter_outlives_a_database_that_is_away(still: Ledger, run: Run) -> None:
    reporter = still.app.extensions["reporter"]
    there, reporter.database = reporter.database, db.Database("mysql://nobody@127.0.0.1:1/none")
    run.log("said while away", "info")
    until(lambda: not reporter.has_lines.is_set())
    reporter.database = there
    until(lambda: still.events(run.job_id, "log"))
