"""A job followed live: every state and line once and in order, before, during and after its run."""

import asyncio
from pathlib import Path

import httpx
import pytest
import websockets
from redis import Redis

from quart_app import attempts, tokens
from quart_app.db import Database
from quart_app.web.follower import Follower
from tests.conftest import Place
from tests.web.following import (
    COUNT,
    Hand,
    Served,
    connect,
    drain,
    flooded,
    follow,
    numbered,
    on_one_database,
    receive,
    step,
    stored,
    told,
)
from tests.web.test_problems import MEGA, memory


async def test_a_job_is_followed_on_a_real_worker_before_during_and_after(
    served: Served, secret: str, http: httpx.AsyncClient, worker: Path
) -> None:
    body = {"task": COUNT, "kwargs": {"steps": 5, "pause": 0.1}, "delay": 0.5}
    job_id = (await http.post("/api/jobs", json=body)).json()["id"]
    before, code = await follow(served, job_id, secret)
    after, code_after = await follow(served, job_id, secret)
    assert (code, code_after) == (1000, 1000)
    assert told(before) == ["scheduled", "queued", "running", *numbered(5), "succeeded"]
    assert stored(before) == stored(after)
    assert before[-1]["result"] == {"steps": 5}
    assert [frame["current"] for frame in before if frame["type"] == "progress"][-1] == 5


async def test_a_result_comes_in_its_own_order_by_every_way(
    served: Served, secret: str, http: httpx.AsyncClient, worker: Path
) -> None:
    body = {"task": "tests.sample_tasks.repeat", "kwargs": {"text": "tea"}}
    job_id = (await http.post("/api/jobs", json=body)).json()["id"]
    frames, _ = await follow(served, job_id, secret)
    shown = (await http.get(f"/api/jobs/{job_id}")).json()
    last = (await http.get(f"/api/jobs/{job_id}/events")).json()["items"][-1]
    for result in (frames[-1]["result"], last["result"], shown["result"]):
        assert list(result) == ["text", "when", "type"]
    assert list(shown)[:4] == ["id", "task", "args", "kwargs"]


async def test_a_failed_job_ends_with_its_error(
    served: Served, secret: str, http: httpx.AsyncClient, worker: Path
) -> None:
    body = {"task": "tests.sample_tasks.fail", "args": ["no use"]}
    job_id = (await http.post("/api/jobs", json=body)).json()["id"]
    frames, code = await follow(served, job_id, secret)
    assert (code, frames[-1]["state"], frames[-1]["error"]) == (
        1000,
        "failed",
        "ValueError: no use",
    )
    await http.post(f"/api/jobs/{job_id}/retry")
    rest, _ = await follow(served, job_id, secret, frames[-1]["seq"])
    assert told(rest) == ["queued", "running", "failed"]


async def test_events_come_as_they_happen(served: Served, secret: str, hand: Hand) -> None:
    job_id = await hand.start()
    async with connect(served, job_id, secret, after=2) as socket:
        await hand.say(job_id, "one", progress=1)
        assert told(await receive(socket, 2)) == ["one"]
        await hand.say(job_id, "two")
        assert told(await receive(socket, 1)) == ["two"]
        await hand.succeed(job_id)
        assert told((await drain(socket))[0]) == ["succeeded"]


async def test_whoever_comes_back_gets_just_what_is_missing(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.whole_job()
    for after in range(6):
        frames, code = await follow(served, job_id, secret, after)
        assert ([frame["seq"] for frame in frames], code) == ([*range(after + 1, 6)], 1000)


@on_one_database
async def test_a_senseless_cursor_replays_everything(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.whole_job()
    for after in ("x", "-1", "", "1.5", "%C2%B2", "9" * 5_000):
        frames, code = await follow(served, job_id, secret, after)
        assert (len(frames), code) == (5, 1000), after


async def test_the_very_last_progress_comes_before_the_end(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.start()
    async with connect(served, job_id, secret, after=2) as socket:
        await hand.say(job_id, progress=99)
        await hand.do(attempts.keep, job_id, 1, 600.0, progress=step(100))
        await hand.succeed(job_id)
        frames, _ = await drain(socket)
    assert [frame.get("current") for frame in frames][-2:] == [100, None]
    assert await follow(served, job_id, secret, frames[-1]["seq"]) == ([], 1000)


async def test_a_long_log_comes_whole(served: Served, secret: str, hand: Hand) -> None:
    job_id = await hand.whole_job(lines=1_200)
    frames, code = await follow(served, job_id, secret)
    assert [frame["seq"] for frame in frames] == [*range(1, 1_204)]
    assert code == 1000


async def test_who_may_not_follow_is_told_by_the_close_code(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.submit()
    refused = {
        (job_id, "wrong", ""): 4401,
        (job_id, secret, "https://evil.example"): 4403,
        (job_id, secret, "null"): 4403,
        ("nothing", secret, ""): 4404,
        ("%C3%A9", secret, ""): 4404,
    }
    for (id_, token, origin), code in refused.items():
        headers = {"Origin": origin} if origin else {}
        assert await follow(served, id_, token, headers=headers) == ([], code)


@on_one_database
async def test_an_unknown_socket_is_404_as_http(served: Served, secret: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await follow(served, "x/y", secret)
    assert refused.value.response.status_code == 404


async def test_a_revoked_token_ends_open_sockets(served: Served, secret: str, hand: Hand) -> None:
    job_id = await hand.submit()
    async with asyncio.timeout(20), connect(served, job_id, secret, after=1) as socket:
        await hand.do(tokens.revoke, "operator")
        assert await drain(socket) == ([], 4401)


async def test_two_hundred_sockets_see_the_same(served: Served, secret: str, hand: Hand) -> None:
    one, other = await hand.start(), await hand.start()
    following = [follow(served, job_id, secret) for job_id in (one, other) for _ in range(100)]
    running = asyncio.gather(*following)
    for job_id in (one, other):
        await hand.say(job_id, *numbered(20), progress=1)
        await hand.succeed(job_id)
    for frames, code in await running:
        assert told(frames) == ["queued", "running", *numbered(20), "succeeded"]
        assert code == 1000


@on_one_database
async def test_what_nobody_asked_a_client_to_say_does_no_harm(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.start()
    async with connect(served, job_id, secret) as socket:
        for frame in ("", b"", "hello", '{"follow": []}', b"\xff"):
            await socket.send(frame)
        await hand.succeed(job_id)
        assert told((await drain(socket))[0]) == ["queued", "running", "succeeded"]


@on_one_database
@pytest.mark.parametrize("frame", ["x" * 60_000, b""], ids=["big", "empty"])
async def test_a_flood_is_closed_and_not_kept(
    served: Served, secret: str, hand: Hand, frame: str | bytes
) -> None:
    job_id = await hand.submit()
    before = memory(served.pid)
    async with connect(served, job_id, secret) as socket:
        assert await flooded(socket, frame) == 1013
    assert memory(served.pid) - before < 20 * MEGA


@on_one_database
async def test_a_frame_over_the_limit_is_closed_with_1009(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.submit()
    async with connect(served, job_id, secret, after=1) as socket:
        await socket.send("x" * 70_000)
        assert (await drain(socket))[1] == 1009


@on_one_database
async def test_something_else_on_the_channel_harms_nobody(
    served: Served, secret: str, hand: Hand, clean: Place
) -> None:
    job_id = await hand.start()
    async with connect(served, job_id, secret, after=2) as socket:
        with Redis.from_url(clean.redis_url) as redis:
            for forged in (b"\xff", b"[]", b"5", b"{}", b'{"type": "progress"}', b"{" * 9_999):
                redis.publish(f"quartermaster:job:{job_id}", forged)
        await hand.say(job_id, "still here")
        assert told(await receive(socket, 1)) == ["still here"]


async def test_a_row_is_not_read_again_for_progress_that_was_just_announced() -> None:
    older, newer = ({"current": n, "total": 2, "message": ""} for n in (1, 2))
    follower = Follower(Database("sqlite://").read, "a job", 0, notify=lambda _: None)
    follower.is_stale = False
    follower.hear({"type": "progress", **newer})
    follower.compare(0, older)
    assert not follower.is_stale
    frames, _ = await follower.news()
    assert [frame["current"] for frame in frames] == [2]


async def test_a_row_is_read_for_progress_that_was_never_announced() -> None:
    follower = Follower(Database("sqlite://").read, "a job", 0, notify=lambda _: None)
    follower.is_stale = False
    follower.compare(0, {"current": 1, "total": 2, "message": ""})
    assert follower.is_stale
