"""The relay: what is due comes on, what is lost comes back, and a healthy backlog is left alone."""

import threading
import time
from typing import Any

import pytest
from quart import Quart
from redis import Redis

from quart_app import attempts, brokers, db, jobs, relay
from quart_app.celeryext import in_app_context
from quart_app.models import JobState
from quart_app.sight import Sight
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until
from tests.test_publisher import many, waiting

ADD = "tests.sample_tasks.add"


def tick(app: Quart) -> int:
    return in_app_context(app, lambda: relay.tick(db.get(), app.extensions["publisher"]))


def together(count: int, app: Quart) -> None:
    """So many relays tick at the same moment."""
    start = threading.Barrier(count)

    def run() -> None:
        start.wait()
        tick(app)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def claimed_by_lost_workers(ledger: Ledger, count: int) -> list[str]:
    """Jobs whose leases run out when the relay has looked for long enough to know who is lost."""
    ids = [claimed(ledger) for _ in range(count)]
    ledger.change_all(lease_until=db.now(60))
    ledger.app.extensions["sight"] = Sight(1.0)
    tick(ledger.app)  # which may take long by itself: what was seen counts from its look on
    began = time.monotonic()
    until(lambda: tick(ledger.app) == 0 and time.monotonic() > began + 0.5)
    ledger.change_all(lease_until=db.now(-1))
    return ids


def claimed(ledger: Ledger, **options: Any) -> str:
    """A job in the hands of a worker that will not be heard of again."""
    job_id = ledger.submit("add", 1, **options)
    until(lambda: ledger.job(job_id).published_at)
    assert ledger.within(lambda s: attempts.claim(s, job_id, ADD, "a worker", 60))
    ledger.change(job_id, lease_until=db.now(-1))
    return job_id


def states(ledger: Ledger, job_id: str) -> list[str]:
    return [event["state"] for event in ledger.events(job_id, "state")]


def test_a_delayed_job_comes_on_when_its_time_has_come(still: Ledger, place: Place) -> None:
    job_id = still.submit("add", 1, delay=3600)
    assert tick(still.app) == 0
    still.change(job_id, available_at=db.now())
    together(8, still.app)
    assert states(still, job_id) == ["scheduled", "queued"]
    until(lambda: waiting(place.redis_url) == [job_id])


def test_a_retrying_job_comes_on_when_its_time_has_come(still: Ledger) -> None:
    job_id = claimed(still)
    still.within(lambda s: attempts.postpone(s, job_id, 1, "it failed", 0.0))
    assert tick(still.app) == 1
    assert states(still, job_id) == ["queued", "running", "retrying", "queued"]


def test_a_lost_job_is_given_back_once_however_many_relays_tick(still: Ledger) -> None:
    ids = claimed_by_lost_workers(still, 20)
    together(8, still.app)
    for job_id in ids:
        job = still.job(job_id)
        assert (job.state, job.losses, job.lease_until) == (JobState.QUEUED, 1, None)
        assert states(still, job_id) == ["queued", "running", "queued"]
    assert job.error == "worker a worker was lost"


def test_a_relay_that_has_only_begun_to_look_takes_nobody_for_lost(clean: Place) -> None:
    ledger = Ledger(clean.app(JOB_LEASE=2.0))
    job_id = claimed(ledger)
    assert tick(ledger.app) == 0
    until(lambda: tick(ledger.app) == 1)
    assert ledger.job(job_id).state is JobState.QUEUED


def test_a_job_whose_worker_is_alive_is_left_to_it(still: Ledger) -> None:
    job_id = claimed(still)
    still.change(job_id, lease_until=db.now(5))
    assert tick(still.app) == 0
    assert still.job(job_id).state is JobState.RUNNING


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(still: Ledger) -> None:
    (job_id,) = claimed_by_lost_workers(still, 1)
    still.within(lambda s: jobs.cancel(s, job_id))
    tick(still.app)
    assert still.job(job_id).state is JobState.CANCELLED
    assert tick(still.app) == 0


def test_a_lost_doorbell_is_rung_again_within_ten_seconds(ledger: Ledger, place: Place) -> None:
    job_id = ledger.submit("add", 1)
    until(lambda: ledger.job(job_id).published_at)
    with Redis.from_url(place.redis_url) as redis:
        redis.flushall()
    assert until(lambda: waiting(place.redis_url) == [job_id], 10)


def test_a_doorbell_that_goes_unheard_is_rung_ever_more_rarely(still: Ledger) -> None:
    job_id = still.submit("add", 1, queue="nowhere")
    until(lambda: still.job(job_id).rings)
    for patience in (3, 6, 12, 24, 48, 60, 60):
        with Redis.from_url(still.app.config["REDIS_URL"]) as redis:
            redis.delete("nowhere")
        still.change(job_id, published_at=db.now(-patience / 2 - 0.1), available_at=db.now(-300))
        assert tick(still.app) == 0
        still.change(job_id, published_at=db.now(-patience))
        assert tick(still.app) == 1


def test_what_was_rung_before_the_broker_was_away_is_soon_rung_again(still: Ledger) -> None:
    job_id = still.submit("add", 1, queue="nowhere")
    until(lambda: still.job(job_id).rings)
    with Redis.from_url(still.app.config["REDIS_URL"]) as redis:
        redis.delete("nowhere")
    still.change(job_id, published_at=db.now(-4), available_at=db.now(-300), rings=6)
    assert tick(still.app) == 0
    publisher = still.app.extensions["publisher"]
    there = publisher.broker
    publisher.broker = brokers.broker(publisher.foundry, "redis://127.0.0.1:1/0", 1)
    assert tick(still.app) == 0
    publisher.broker = there
    assert tick(still.app) == 1
    assert tick(still.app) == 0


def test_a_deep_healthy_backlog_is_not_rung_again(still: Ledger, place: Place) -> None:
    still.within(lambda s: jobs.submit_many(s, many(300, queue="deep")))
    still.within(lambda s: jobs.submit_many(s, many(300, queue="deep", priority=9)))
    until(lambda: all(job.published_at for job in still.jobs()))
    still.change_all(published_at=db.now(-300), available_at=db.now(-300))
    before = pushes(place)
    for _ in range(20):
        tick(still.app)
    assert pushes(place) == before


def test_what_went_missing_from_a_deep_backlog_is_rung_again(still: Ledger, place: Place) -> None:
    ids = [job.id for job in still.within(lambda s: jobs.submit_many(s, many(50, queue="deep")))]
    until(lambda: all(job.published_at for job in still.jobs()))
    with Redis.from_url(place.redis_url) as redis:
        redis.ltrim("deep", 0, 39)  # the ten at the end, which would be heard first
    for age, job_id in enumerate(reversed(ids)):
        still.change(job_id, published_at=db.now(-200 - 10 * age), available_at=db.now(-300))
    tick(still.app)
    assert set(waiting(place.redis_url, "deep")) == set(ids)
    assert len(waiting(place.redis_url, "deep")) == 50


def pushes(place: Place) -> int:
    with Redis.from_url(place.redis_url) as redis:
        statistics: Any = redis.info("commandstats")
    return int(statistics["cmdstat_lpush"]["calls"])


def test_no_queue_waits_for_another_that_nobody_listens_to(still: Ledger, place: Place) -> None:
    still.app.extensions["publisher"].most_doorbells = 20
    still.within(lambda s: jobs.submit_many(s, many(60, queue="nowhere")))
    until(lambda: len(waiting(place.redis_url, "nowhere")) >= 20)
    job_id = still.submit("add", 1)
    until(lambda: still.job(job_id).published_at)
    with Redis.from_url(place.redis_url) as redis:
        redis.delete("celery")
    for job in still.jobs():
        still.change(
            job.id, published_at=job.published_at and db.now(-30), available_at=db.now(-60)
        )
    tick(still.app)
    assert waiting(place.redis_url) == [job_id]


def test_many_relays_ring_each_doorbell_once(still: Ledger, place: Place) -> None:
    publisher = still.app.extensions["publisher"]
    publisher.most_doorbells = 0
    still.submit("add", 0, queue="deep")
    until(lambda: not publisher.has_room("deep"))
    ids = [job.id for job in still.within(lambda s: jobs.submit_many(s, many(100, queue="deep")))]
    publisher.most_doorbells = 1000
    still.change_all(available_at=db.now(-5))
    together(8, still.app)
    rung = [job_id for job_id in waiting(place.redis_url, "deep") if job_id in ids]
    assert sorted(map(str, rung)) == sorted(ids)


def test_doorbells_that_redis_did_not_take_are_not_noted_as_rung(clean: Place) -> None:
    away = {"REDIS_URL": "redis://127.0.0.1:1/0", "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    ledger = Ledger(clean.app(**away))
    job_id = ledger.submit("add", 1)
    ledger.change(job_id, available_at=db.now(-5))
    tick(ledger.app)
    assert ledger.job(job_id).published_at is None
    ledger.app.extensions["publisher"].close()


@pytest.mark.parametrize("text", ["{", '{"headers": {"id": "é"}}', '{"headers": {"id": 5}}'])
def test_a_message_that_makes_no_sense_does_not_stop_the_relay(
    still: Ledger, place: Place, text: str
) -> None:
    job_id = still.submit("add", 1)
    until(lambda: still.job(job_id).published_at)
    with Redis.from_url(place.redis_url) as redis:
        redis.delete("celery")
        redis.lpush("celery", text)
    still.change(job_id, published_at=db.now(-100), available_at=db.now(-100))
    assert tick(still.app) == 1
    assert waiting(place.redis_url)[-1] == job_id


@pytest.mark.parametrize("broker", ["redis", "memory"])
def test_a_doorbell_that_cannot_be_made_holds_up_no_other(
    clean: Place, caplog: pytest.LogCaptureFixture, broker: str
) -> None:
    ledger = Ledger(app_with_a_lost_route(clean, broker))
    wrong, right = [ledger.submit(task, 1, queue="celery") for task in ("stumble", "add")]
    until(lambda: ledger.job(right).rings)
    ledger.change_all(available_at=db.now(-5), published_at=None, rings=0)
    assert [tick(ledger.app) for _ in range(2)] == [1, 0]
    assert (ledger.job(wrong).published_at, ledger.job(wrong).rings) == (None, 0)
    assert ledger.job(right).rings == 1
    assert caplog.text.count(f"No message can be made of job {wrong}: LookupError") == 1


def test_a_doorbell_that_cannot_be_made_is_not_noted_as_rung(clean: Place) -> None:
    ledger = Ledger(app_with_a_lost_route(clean, "redis"))
    tasks = ("tests.sample_tasks.stumble", ADD)
    wanted = [jobs.NewJob(task=task, args=[1], queue="celery") for task in tasks]
    wrong, right = ledger.within(lambda s: [job.id for job in jobs.submit_many(s, wanted)])
    until(lambda: ledger.job(right).published_at)
    assert (ledger.job(wrong).published_at, ledger.job(wrong).rings) == (None, 0)


def app_with_a_lost_route(place: Place, broker: str) -> Quart:
    """One whose routes cannot say where a task goes."""

    def route(name: str, *_: Any, **__: Any) -> None:
        if name == "tests.sample_tasks.stumble":
            raise LookupError(name)

    url = {"memory": {"CELERY_BROKER_URL": "memory://"}}.get(broker, {})
    return place.app(CELERY_TASK_ROUTES=(route,), **url)


def test_a_relay_outlives_a_database_that_is_away(
    clean: Place, caplog: pytest.LogCaptureFixture
) -> None:
    thread = relay.Relay(clean.app(DATABASE_URL="mysql://nobody@127.0.0.1:1/none"))
    thread.start()
    until(lambda: "The relay could not look: OperationalError" in caplog.text)
    assert thread.is_alive()
    thread.stop()
    assert not thread.is_alive()


def test_a_key_that_is_no_list_stops_its_queue_alone(ledger: Ledger, place: Place) -> None:
    with Redis.from_url(place.redis_url) as redis:
        redis.set("taken", "by someone else")
        ledger.submit("add", 1, queue="taken")
        job_id = ledger.submit("add", 1)
        assert until(lambda: waiting(place.redis_url) == [job_id])
        redis.delete("celery")
        assert until(lambda: waiting(place.redis_url) == [job_id], 15)
