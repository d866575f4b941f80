"""The way to the broker: nothing leaves before the commit, and nobody ever waits for it."""

import json
import logging
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from redis import Redis
from sqlalchemy import func, select

from quart_app import db, jobs, relay
from quart_app.celeryext import in_app_context
from quart_app.doorbell import job_of
from quart_app.models import Job, JobState
from quart_app.publisher import CHANNEL, Publisher
from settings import broker_url
from tests import real
from tests.conftest import Place, working
from tests.ledger import Ledger
from tests.real import OwnRedis, until

ADD = "tests.sample_tasks.add"


@pytest.fixture
def server(tmp_path: Path) -> OwnRedis:
    return OwnRedis(tmp_path)


def app_on(place: Place, server: OwnRedis, **config: Any) -> Quart:
    urls = {"REDIS_URL": server.url, "CELERY_BROKER_URL": broker_url(server.url)}
    return place.app(**urls, **config)


def waiting(url: str, queue: str = "celery") -> list[str | None]:
    """The jobs whose doorbells wait, in the order they will be heard."""
    with Redis.from_url(url) as redis:
        return [job_of(text) for text in reversed(redis.lrange(queue, 0, -1))]


def test_a_doorbell_leaves_after_the_commit(ledger: Ledger, clean: Place) -> None:
    def submit(session: Any) -> str:
        job_id = jobs.submit(session, ADD, args=[1]).id
        time.sleep(0.1)
        assert waiting(clean.redis_url) == []
        return str(job_id)

    job_id = ledger.within(submit)
    until(lambda: waiting(clean.redis_url) == [job_id])
    until(lambda: ledger.job(job_id).published_at)


def test_nothing_leaves_when_the_transaction_fails(ledger: Ledger, clean: Place) -> None:
    def submit(session: Any) -> None:
        jobs.submit(session, ADD, args=[1])
        raise LookupError

    with Redis.from_url(clean.redis_url) as redis, redis.pubsub() as followers:
        followers.psubscribe(CHANNEL + "*")
        assert followers.get_message(timeout=20)
        with pytest.raises(LookupError):
            ledger.within(submit)
        job_id = ledger.submit("add", 1)
        assert (followers.get_message(timeout=20) or {})["channel"] == (CHANNEL + job_id).encode()
    assert waiting(clean.redis_url) == [job_id]


def test_what_a_savepoint_undid_is_neither_rung_nor_announced(ledger: Ledger, clean: Place) -> None:
    def submit(session: Any) -> str:
        with suppress(LookupError), session.begin_nested():
            jobs.submit(session, ADD, args=[1])
            raise LookupError
        return str(jobs.submit(session, ADD, args=[2]).id)

    with Redis.from_url(clean.redis_url) as redis, redis.pubsub() as followers:
        followers.psubscribe(CHANNEL + "*")
        assert followers.get_message(timeout=20)
        job_id = ledger.within(submit)
        assert (followers.get_message(timeout=20) or {})["channel"] == (CHANNEL + job_id).encode()
    until(lambda: ledger.job(job_id).published_at)
    assert waiting(clean.redis_url) == [job_id]


def test_frames_are_announced(ledger: Ledger, clean: Place, worker: Path) -> None:
    with Redis.from_url(clean.redis_url) as redis, redis.pubsub() as followers:
        followers.psubscribe(CHANNEL + "*")
        job_id = ledger.submit("add", 1)
        ledger.ended(job_id)
        told = [followers.get_message(timeout=seconds) or {} for seconds in (20, 20, 20, 20, 1)]
    frames = [json.loads(message["data"]) for message in told if message.get("pattern")]
    assert {frame["seq"]: frame["state"] for frame in frames} == {
        1: "queued", 2: "running", 3: "succeeded",
    }  # fmt: skip


async def test_nobody_waits_for_a_redis_that_hangs(clean: Place, server: OwnRedis) -> None:
    app = app_on(clean, server, PUBLISH_TIMEOUT=60.0)
    async with app.app_context():
        with server.running() as redis, working(app):
            await db.run(jobs.submit, ADD, args=[1])
            redis.send_signal(signal.SIGSTOP)
            ids = [(await db.run(jobs.submit, ADD, args=[n])).id for n in range(20)]
            published = [(await db.read(jobs.get, job_id)).published_at for job_id in ids]
            assert app.extensions["publisher"].failures["messages"] == 0  # it is still waiting
            assert published == [None] * 20
            redis.send_signal(signal.SIGCONT)
            await real.eventually(lambda: heard(server, 21), 15)
        await app.extensions["db"].close()  # once no thread has one of its connections


async def heard(server: OwnRedis, count: int) -> bool:
    return len(set(waiting(server.url))) == count


def test_jobs_run_when_redis_is_back_with_nobodys_help(clean: Place, server: OwnRedis) -> None:
    app = app_on(clean, server)
    env = clean.env | {"REDIS_URL": server.url}
    ledger = Ledger(app)
    worker = real.worker(env, server.folder / "log", "-P", "solo")
    with working(app), server.running() as redis, worker:
        redis.send_signal(signal.SIGSTOP)
        job_id = ledger.submit("add", 1)
        redis.kill()
        redis.wait()
        later = ledger.submit("add", 2)
        assert [job.published_at for job in ledger.jobs()] == [None, None]
        with server.running():
            assert [ledger.ended(each).result for each in (job_id, later)] == [2, 3]


def test_what_is_pending_is_bounded(clean: Place, server: OwnRedis) -> None:
    app = app_on(clean, server)
    publisher = app.extensions["publisher"]
    publisher.most_pending = 30
    with server.running() as redis:
        redis.send_signal(signal.SIGSTOP)
        for _ in range(5):
            Ledger(app).within(lambda s: jobs.submit_many(s, many(10)))
        assert len(publisher._pending) <= 30
        began = time.monotonic()
        publisher.close()
        assert time.monotonic() - began < 8


def many(count: int, **options: Any) -> list[jobs.NewJob]:
    return [jobs.NewJob(task=ADD, args=[n], **options) for n in range(count)]


def test_a_full_list_leaves_the_backlog_to_the_relay_which_feeds_it_in_order(
    clean: Place, server: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quart_app.publisher._FULL_FOR", 60.0)
    app = app_on(clean, server)
    app.extensions["publisher"].most_doorbells = 10
    ledger = Ledger(app)
    with server.running(), Redis.from_url(server.url) as redis:
        ids = [ledger.submit("add", n) for n in range(10)]
        until(lambda: len(waiting(server.url)) == 10)
        ids += [ledger.submit("add", n) for n in range(30)]
        eaten: list[Any] = []
        with working(app):
            until(lambda: eat(redis, eaten) == ids[-1])
            assert len(waiting(server.url)) <= 10
    assert eaten == ids


def eat(redis: Any, eaten: list[str | None]) -> str | None:
    """Takes the message that comes first, as a worker would; the job it speaks of."""
    if text := redis.rpop("celery"):
        eaten.append(job_of(text))
    return eaten[-1] if eaten else None


def test_a_backlog_in_the_database_is_fed_by_priority(clean: Place, server: OwnRedis) -> None:
    app = app_on(clean, server)
    ledger = Ledger(app)
    app.extensions["publisher"].most_doorbells = 0
    priorities = (9, 3, 0, 6, 0)
    ids = [ledger.submit("add", 1, priority=priority) for priority in priorities]
    app.extensions["publisher"].most_doorbells = 1
    for job_id in ids:
        ledger.change(job_id, available_at=db.now(-5), published_at=None)
    with server.running(), Redis.from_url(server.url) as redis, working(app):
        steps = ("celery", "celery\x06\x163", "celery\x06\x166", "celery\x06\x169")
        heard = [job_of((redis.brpop(steps, 10) or (b"", b""))[1]) for _ in range(5)]
    assert [priorities[ids.index(str(job_id))] for job_id in heard] == [0, 0, 3, 6, 9]


def test_a_process_that_dies_between_commit_and_doorbell_loses_nothing(
    clean: Place, ledger: Ledger, worker: Path
) -> None:
    env = real.environment(clean.env)
    died = subprocess.run([sys.executable, "-c", DIES], env=env, cwd=real.ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    (job,) = ledger.jobs()
    assert ledger.ended(job.id).result == 3


DIES = """
import os, signal
from quart_app import db, jobs
from quart_app.app import create_app
from quart_app.celeryext import in_app_context
app = create_app()
app.extensions["db"].after_commit.insert(0, lambda _: os.kill(os.getpid(), signal.SIGKILL))
def submit():
    with db.session() as session:
        jobs.submit(session, "tests.sample_tasks.add", args=[2])
in_app_context(app, submit)
"""


def test_closing_sends_what_is_pending(clean: Place) -> None:
    app = clean.app()
    count = 700
    Ledger(app).within(lambda s: jobs.submit_many(s, many(count, queue="nowhere")))
    app.extensions["publisher"].close()
    assert len(set(waiting(clean.redis_url, "nowhere"))) == count
    noted = select(func.count()).where(Job.published_at.is_not(None))
    assert Ledger(app).within(lambda s: s.scalar(noted)) == count


def test_the_password_of_the_broker_is_in_no_log(
    clean: Place, server: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-of-the-broker"
    with server.running():
        url = server.url.replace("://", f"://user:{secret}@")
        app = clean.app(REDIS_URL=url, CELERY_BROKER_URL=url)
        Ledger(app).submit("add", 1)
        in_app_context(app, lambda: relay.tick(app.extensions["db"], app.extensions["publisher"]))
        app.extensions["publisher"].close()
    assert "The broker did not take 1 messages: AuthenticationError" in caplog.text
    assert secret not in caplog.text


def test_a_broker_that_is_not_redis_is_left_in_time_too(
    clean: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with real.listener() as port:  # takes connections, and never says a word
        app = clean.app(CELERY_BROKER_URL=f"amqp://guest:guest@127.0.0.1:{port}//")
        publisher: Publisher = app.extensions["publisher"]
        job_id = Ledger(app).submit("add", 1)
        began = time.monotonic()
        publisher.close()
        assert time.monotonic() - began < 8
    assert Ledger(app).job(job_id).published_at is None
    assert Ledger(app).job(job_id).state is JobState.QUEUED


def test_a_redis_that_is_full_has_taken_nothing(clean: Place, tmp_path: Path) -> None:
    with real.redis_server(tmp_path) as url, Redis.from_url(url) as redis:
        app = clean.app(REDIS_URL=url, CELERY_BROKER_URL=url)
        redis.config_set("maxmemory", "1")
        ledger = Ledger(app)
        job_id = ledger.submit("add", 1)
        ledger.change(job_id, available_at=db.now(-5))
        for _ in range(5):
            in_app_context(app, lambda: relay.tick(db.get(), app.extensions["publisher"]))
        assert (ledger.job(job_id).published_at, ledger.job(job_id).rings) == (None, 0)
        redis.config_set("maxmemory", "0")
        in_app_context(app, lambda: relay.tick(db.get(), app.extensions["publisher"]))
        assert waiting(url) == [job_id]
        app.extensions["publisher"].close()
