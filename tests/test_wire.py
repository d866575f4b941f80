"""The one Redis subscription of a web process, while many come and go in the same moment."""

import asyncio
import json

import pytest
from redis import Redis

from quart_app.web import wire
from quart_app.web.live import end
from quart_app.web.wire import Wire
from tests.conftest import Place
from tests.real import eventually


async def test_a_channel_that_is_joined_while_others_leave_it_is_heard(clean: Place) -> None:
    heard: set[str] = set()
    joined: set[str] = set()
    line = Wire(clean.redis_url, lambda channel, _: heard.add(channel), joined.add)
    listening = asyncio.create_task(line.listen())
    channels = [f"channel {number}" for number in range(1_700)]

    async def all_are(told: set[str]) -> bool:
        return told >= {*channels}

    async def subscribed() -> bool:
        await asyncio.to_thread(publish, clean.redis_url, channels)
        return await all_are(heard)

    await line.join(channels)
    await eventually(lambda: all_are(joined))
    await asyncio.gather(line.leave(channels), line.join(channels))
    heard.clear()
    await eventually(subscribed)
    await end([listening])


async def test_a_redis_that_stays_away_is_told_of_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_AGAIN", 0.0)
    tries = 0

    async def tried_again(_reader: object, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    async def often() -> bool:
        return tries > 5

    async with await asyncio.start_server(tried_again, "127.0.0.1", 0) as closing:
        port = closing.sockets[0].getsockname()[1]
        away = Wire(f"redis://127.0.0.1:{port}/0", lambda *_: None, lambda _: None)
        listening = asyncio.create_task(away.listen())
        await eventually(often)
        await end([listening])
    assert [line for line in caplog.messages if line.startswith("Redis is away")] == [
        "Redis is away, following rows instead: ConnectionError"
    ]


def publish(url: str, channels: list[str]) -> None:
    with Redis.from_url(url) as client:
        pipe = client.pipeline(transaction=False)
        for channel in channels:
            pipe.publish(channel, json.dumps("x"))
        pipe.execute()
