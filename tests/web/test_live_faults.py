"""A job followed live while parts of the system stop, freeze and come back."""

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from redis import Redis
from sqlalchemy import text
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from werkzeug.datastructures import Headers

from quart_app import jobs
from quart_app.db import Database
from quart_app.newjobs import NewJob
from quart_app.publisher import CHANNEL
from quart_app.web import live
from tests import real
from tests.conftest import Place
from tests.real import OwnRedis, eventually
from tests.web.conftest import serving
from tests.web.following import (
    COUNT,
    Frames,
    Hand,
    Served,
    connect,
    connect_many,
    deaf,
    drain,
    follow,
    on_one_database,
    receive,
    told,
)
from tests.web.test_problems import MEGA, memory


@pytest.fixture
def redis(tmp_path: Path) -> OwnRedis:
    return OwnRedis(tmp_path)


@pytest.fixture
def web(clean: Place, redis: OwnRedis, tmp_path: Path) -> Iterator[Served]:
    """A web process with the Redis that may be stopped, which does not run yet."""
    with serving(clean, tmp_path / "web.log", REDIS_URL=redis.url) as served:
        yield served


@pytest.fixture
async def apart(clean: Place, redis: OwnRedis) -> AsyncIterator[Hand]:
    """A hand whose announcements go by the Redis that may be stopped."""
    app = replace(clean, redis_url=redis.url).app(PUBLISH_TIMEOUT=0.3)
    yield Hand(app)
    app.extensions["publisher"].close()
    await app.extensions["db"].close()


async def test_without_redis_rows_are_followed_once_a_second(
    web: Served, secret: str, apart: Hand
) -> None:
    job_id = await apart.start()
    async with connect(web, job_id, secret, after=2) as socket, asyncio.timeout(20):
        await apart.say(job_id, "one", progress=1)
        frames = await receive(socket, 2)
        assert told(frames) == ["one"]
        assert frames[-1]["current"] == 1
        await apart.succeed(job_id)
        assert told((await drain(socket))[0]) == ["succeeded"]


async def test_nothing_is_missed_or_repeated_while_redis_comes_and_goes(
    web: Served, secret: str, apart: Hand, redis: OwnRedis
) -> None:
    job_id = await apart.start()
    async with connect(web, job_id, secret, after=2) as socket:
        with redis.running():
            await apart.say(job_id, "with")
            assert told(await receive(socket, 1)) == ["with"]
        await apart.say(job_id, "without")
        assert told(await receive(socket, 1)) == ["without"]
        with redis.running():
            await apart.say(job_id, "again")
            await apart.succeed(job_id)
            assert told((await drain(socket))[0]) == ["again", "succeeded"]


@on_one_database
async def test_a_frozen_redis_is_noticed_and_the_newest_progress_still_arrives(
    web: Served, secret: str, apart: Hand, redis: OwnRedis
) -> None:
    job_id = await apart.start()
    with redis.running() as server:
        async with connect(web, job_id, secret, after=2) as socket, asyncio.timeout(40):
            await apart.say(job_id, progress=1)
            assert (await receive(socket, 1))[0]["current"] == 1
            server.send_signal(signal.SIGSTOP)
            await apart.say(job_id, progress=2)
            assert (await receive(socket, 1))[0]["current"] == 2
            server.send_signal(signal.SIGCONT)


async def test_the_feed_goes_on_by_rows_while_redis_is_away(
    web: Served, secret: str, apart: Hand, redis: OwnRedis
) -> None:
    running = await apart.start()
    foreign = str(uuid.UUID(int=2**128 - 1, version=4))  # sorts after every id of ours
    assert await apart.do(jobs.adopt, foreign, NewJob(task=COUNT, kwargs={"steps": 1}))
    async with connect_many(web, secret) as socket, asyncio.timeout(30):
        await socket.send('{"follow": "all"}')
        await eventually(lambda: hears_of_a_new_job(socket, apart))
        await apart.succeed(running)
        assert (await next_about(running, socket))["state"] == "succeeded"
        with redis.running():
            await eventually(lambda: hears_of_a_new_job(socket, apart))


async def test_without_redis_the_feed_has_begun_when_the_pong_comes(
    web: Served, secret: str, apart: Hand
) -> None:
    async with connect_many(web, secret) as socket, asyncio.timeout(30):
        await socket.send('{"follow": "all", "ping": true}')
        assert json.loads(await socket.recv()) == {"type": "pong"}
        await next_about(await apart.submit(), socket)


@pytest.fixture
def joining(clean: Place, redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> Quart:
    """Looks at the rows of a job only when it has joined its channel."""
    monkeypatch.setattr(live, "_LOOK_EVERY", 1_000.0)
    return replace(clean, redis_url=redis.url).app()


async def test_what_nobody_announced_is_told_although_the_database_was_away_at_first(
    joining: Quart, secret: str, apart: Hand, redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    async def has_failed() -> bool:
        return "Those who follow jobs have to wait" in caplog.text

    job_id = await apart.start()
    following = streamed(joining, job_id, secret)
    async with joining.test_app(), following as stream, AsyncExitStack() as stack:
        await stream.send_complete()
        assert b"running" in await stream.receive()
        await apart.say(job_id, "not announced")
        with without_jobs(joining.extensions["db"]):
            stack.enter_context(redis.running())
            await eventually(has_failed)
        assert b"not announced" in await stream.receive()
        await stream.disconnect()


def streamed(app: Quart, job_id: str, secret: str) -> Any:
    """A stream of the job, from its start on."""
    headers = Headers({"Authorization": f"Bearer {secret}", "Accept": "text/event-stream"})
    return app.test_client().request(f"/api/jobs/{job_id}/events?after=1", headers=headers)


@contextmanager
def without_jobs(database: Database) -> Iterator[None]:
    """While there is no table of jobs."""
    rename(database, "jobs", "jobs_away")
    try:
        yield
    finally:
        rename(database, "jobs_away", "jobs")


def rename(database: Database, table: str, name: str) -> None:
    with database.session() as session:
        session.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


@pytest.fixture
def trusting(clean: Place, monkeypatch: pytest.MonkeyPatch) -> Quart:
    """Once it has joined a channel, looks at the rows only because Redis may lose something."""
    monkeypatch.setattr(live, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(live, "_MAKE_SURE_EVERY", 1_000.0)
    return clean.app()


@on_one_database
async def test_what_redis_has_lost_is_told_by_the_rows_although_it_is_up(
    trusting: Quart, secret: str, apart: Hand
) -> None:
    job_id = await apart.start()
    async with trusting.test_app(), streamed(trusting, job_id, secret) as stream:
        await stream.send_complete()
        assert b"running" in await stream.receive()
        await eventually(lambda: is_listened_to(trusting, job_id))
        await apart.say(job_id, "announced elsewhere")
        async with asyncio.timeout(10):
            assert b"announced elsewhere" in await stream.receive()
        await stream.disconnect()


async def is_listened_to(app: Quart, job_id: str) -> bool:
    """Whether the Redis of the application has a subscriber to the job's channel."""
    with Redis.from_url(app.config["REDIS_URL"]) as redis:
        ((_, subscribers),) = redis.pubsub_numsub(CHANNEL + job_id)
    return bool(subscribers)


async def hears_of_a_new_job(socket: ClientConnection, hand: Hand) -> bool:
    try:
        async with asyncio.timeout(2):
            return bool(await next_about(await hand.submit(), socket))
    except TimeoutError:
        return False


async def next_about(job_id: str, socket: ClientConnection) -> dict[str, Any]:
    while (frame := json.loads(await socket.recv()))["job"] != job_id:
        pass
    return dict(frame)


@on_one_database
@pytest.mark.parametrize("by", ["serve", "hypercorn"])
async def test_a_stop_sends_everyone_elsewhere_and_ends_in_time(
    clean: Place, secret: str, hand: Hand, tmp_path: Path, by: str
) -> None:
    job_id = await hand.start()
    async with AsyncExitStack() as stack:
        web = stack.enter_context(serving(clean, tmp_path / "web.log", by=by))
        opening = asyncio.Semaphore(50)

        async def opened() -> ClientConnection:
            async with opening:
                socket = await stack.enter_async_context(connect(web, job_id, secret))
                await receive(socket, 2)
                return socket

        sockets = await asyncio.gather(*(opened() for _ in range(500)))
        web.process.terminate()
        closed = await asyncio.gather(*map(drain, sockets))
        assert [code for _, code in closed] == [1012] * 500
        assert await asyncio.to_thread(web.process.wait, 15) in (0, -signal.SIGTERM)
    assert "Traceback" not in web.log.read_text()


@on_one_database
async def test_a_restart_of_the_web_loses_and_repeats_nothing(
    clean: Place, secret: str, hand: Hand, tmp_path: Path
) -> None:
    job_id, port = await hand.start(), real.free_port()
    seen: Frames = []
    for line in ("one", "two"):
        with serving(clean, tmp_path / "web.log", port=port) as web:
            async with connect(web, job_id, secret, after=len(seen)) as socket:
                await hand.say(job_id, line)
                seen += await receive(socket, 3 if line == "one" else 1)
    await hand.succeed(job_id)
    with serving(clean, tmp_path / "web.log", port=port) as web:
        seen += (await follow(web, job_id, secret, len(seen)))[0]
    assert told(seen) == ["queued", "running", "one", "two", "succeeded"]


@on_one_database
async def test_a_client_that_never_reads_hurts_nobody(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.start()
    before = memory(served.pid)
    async with AsyncExitStack() as stack:
        for _ in range(10):
            stack.enter_context(deaf(served, f"/ws/jobs/{job_id}", secret))
        async with connect(served, job_id, secret) as good:
            for _ in range(8):
                await hand.say(job_id, *["x" * 4_000] * 200)
            assert len(await receive(good, 1_602)) == 1_602
    assert memory(served.pid) - before < 60 * MEGA


@on_one_database
async def test_a_client_that_reads_too_slowly_is_let_go(
    clean: Place, secret: str, hand: Hand, tmp_path: Path
) -> None:
    job_id = await hand.start()
    with serving(clean, tmp_path / "web.log", MAX_SOCKETS_PER_TOKEN="1") as web:
        async with connect(web, job_id, secret, max_queue=1) as slow:
            for _ in range(4):
                await hand.say(job_id, *["x" * 8_000] * 500)

            await eventually(lambda: served_at_once(web, job_id, secret))
            frames, code = await drain(slow)
    assert (code, len(frames) < 2_002) == (1013, True)


async def served_at_once(web: Served, job_id: str, secret: str) -> bool:
    """Whether the only place for a socket is free."""
    async with connect(web, job_id, secret) as socket:
        try:
            return bool(await receive(socket, 1))
        except ConnectionClosed:
            return False
