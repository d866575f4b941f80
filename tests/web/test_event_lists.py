"""A job's events as one list: whole and in order, however long, or cut off for all to see."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from quart import Quart
from werkzeug.datastructures import Headers

from tests.conftest import Place
from tests.cutter import Cutter
from tests.web.conftest import serving
from tests.web.following import Hand, Served, numbered, told

LINE = "x" * 8_000


async def job_that_said(hand: Hand, lines: list[str]) -> str:
    """The path of the events of a job that has ended."""
    job_id = await hand.start()
    for start in range(0, len(lines), 500):
        await hand.say(job_id, *lines[start : start + 500])
    await hand.succeed(job_id)
    return f"/api/jobs/{job_id}/events"


@pytest.mark.parametrize("lines", [97, 98, 500])  # of three events the job tells by itself
async def test_a_long_list_is_whole_and_in_order(client: Any, hand: Hand, lines: int) -> None:
    path = await job_that_said(hand, numbered(lines))
    answer = await client.get(path)
    items = (await answer.get_json())["items"]
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert [item["seq"] for item in items] == [*range(1, lines + 4)]
    assert told(items) == ["queued", "running", *numbered(lines), "succeeded"]
    assert (await (await client.get(f"{path}?after={lines}")).get_json())["items"] == items[lines:]
    assert (await (await client.get(f"{path}?after={lines + 3}")).get_json()) == {"items": []}


async def test_a_long_list_is_made_piece_by_piece(app: Quart, token: str, hand: Hand) -> None:
    path = await job_that_said(hand, [LINE] * 500)
    headers = Headers({"Authorization": f"Bearer {token}"})
    pieces: list[bytes] = []
    async with app.test_client().request(path, headers=headers) as connection, asyncio.timeout(20):
        await connection.send_complete()
        while not pieces or not pieces[-1].endswith(b"]}"):
            pieces.append(await connection.receive())
        await connection.disconnect()
    assert max(map(len, pieces)) < 1_000_000
    assert len(json.loads(b"".join(pieces))["items"]) == 503


@pytest.fixture
def web(clean: Place, cutter: Cutter, tmp_path: Path) -> Iterator[Served]:
    """A web process whose database goes away when the cutter is told so."""
    behind = replace(clean, database_url=cutter.url)
    with serving(behind, tmp_path / "web.log") as web:
        yield web


@pytest.mark.parametrize("places", ["mariadb"], indirect=True)
async def test_a_list_whose_database_goes_away_is_cut_off(
    web: Served, cutter: Cutter, secret: str, hand: Hand
) -> None:
    path, headers = await job_that_said(hand, [LINE] * 4_000), {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=web.address, headers=headers, timeout=30) as http:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            await read_until_cut_off(http, path, cutter)
    assert "A list of events is cut off" in web.log.read_text()
    assert "Traceback" not in web.log.read_text()


async def read_until_cut_off(http: httpx.AsyncClient, path: str, cutter: Cutter) -> None:
    async with http.stream("GET", path) as answer:
        assert answer.status_code == 200
        async for _ in answer.aiter_bytes():
            cutter.is_away = True
