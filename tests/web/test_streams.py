"""A job's events as server-sent events."""

import asyncio
import json
from typing import Any

import httpx
from quart import Quart
from werkzeug.datastructures import Headers

from quart_app import tokens
from tests.web.following import Hand, numbered, on_one_database, told

EVENTS = {"Accept": "text/event-stream"}


async def frames(answer: httpx.Response) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        lines = [line async for line in answer.aiter_lines()]
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


async def test_a_stream_replays_follows_and_ends(http: httpx.AsyncClient, hand: Hand) -> None:
    job_id = await hand.start()
    async with http.stream("GET", f"/api/jobs/{job_id}/events", headers=EVENTS) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        await hand.say(job_id, *numbered(3))
        await hand.succeed(job_id)
        assert told(await frames(answer)) == ["queued", "running", *numbered(3), "succeeded"]


async def test_a_stream_goes_on_after_the_last_event_seen(
    http: httpx.AsyncClient, hand: Hand
) -> None:
    job_id = await hand.start()
    await hand.say(job_id, "line 1", "line 2", progress=1)
    await hand.succeed(job_id)
    path = f"/api/jobs/{job_id}/events"
    rest = await http.get(f"{path}?after=1", headers=EVENTS | {"Last-Event-ID": "3"})
    seqs = [line for line in rest.text.splitlines() if line.startswith("id: ")]
    assert seqs == ["id: 4", "id: 5"]
    for senseless in ("x", "-1", "9" * 5_000):
        everything = await http.get(path, headers=EVENTS | {"Last-Event-ID": senseless})
        assert everything.text.count("id: ") == 5


async def test_who_comes_back_for_more_of_a_job_that_has_ended_hears_that_there_is_none(
    http: httpx.AsyncClient, hand: Hand
) -> None:
    job_id = await hand.start()
    path, seen = f"/api/jobs/{job_id}/events", EVENTS | {"Last-Event-ID": "2"}
    async with http.stream("GET", path, headers=seen) as answer:
        await hand.succeed(job_id)
        assert told(await frames(answer)) == ["succeeded"]
    assert (await http.get(path, headers=EVENTS | {"Last-Event-ID": "3"})).status_code == 204
    assert (await http.get(f"{path}?after=3", headers=EVENTS)).status_code == 204


@on_one_database
async def test_asked_for_its_head_a_stream_ends_at_once(client: Any, hand: Hand) -> None:
    path = f"/api/jobs/{await hand.start()}/events"
    async with asyncio.timeout(10):
        answer = await client.head(path, headers=EVENTS)
    assert answer.headers["Content-Type"].startswith("text/event-stream")


@on_one_database
async def test_a_stream_of_an_unknown_job_is_404(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/jobs/nothing/events", headers=EVENTS)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


@on_one_database
async def test_a_quiet_stream_shows_that_it_is_alive_for_longer_than_other_answers_may_take(
    app: Quart, token: str, hand: Hand
) -> None:
    app.config["RESPONSE_TIMEOUT"], app.extensions["live"].heartbeat = 0.01, 0.02
    path, headers = f"/api/jobs/{await hand.start()}/events", {"Authorization": f"Bearer {token}"}
    async with app.test_client().request(path, headers=Headers(headers | EVENTS)) as connection:
        await connection.send_complete()
        heard = b""
        async with asyncio.timeout(10):
            while heard.count(b": still here\n\n") < 3:
                heard += await connection.receive()
        await connection.disconnect()


async def test_a_revoked_token_ends_the_stream(http: httpx.AsyncClient, hand: Hand) -> None:
    job_id = await hand.submit()
    async with http.stream("GET", f"/api/jobs/{job_id}/events", headers=EVENTS) as answer:
        await hand.do(tokens.revoke, "operator")
        async with asyncio.timeout(20):
            assert told(await frames(answer)) == ["queued"]
