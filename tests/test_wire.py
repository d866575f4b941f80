"""The one Redis subscription of a web process, while many come and go in the same moment."""

import asyncio
import json

from redis import Redis

from quart_app.web.live import end
from quart_app.web.wire import Wire
from tests.conftest import Place
from tests.real import eventually


async def test_a_channel_that_is_joined_while_others_leave_it_is_heard(clean: Place) -> None:
    heard: set[str] = set()
    joined: set[str] = set()
    wire = Wire(clean.redis_url, lambda channel, _: heard.add(channel), joined.add)
    listening = asyncio.create_task(wire.listen())
    channels = [f"channel {number}" for number in range(1_700)]

    async def all_are(told: set[str]) -> bool:
        return told >= {*channels}

    async def subscribed() -> bool:
        await asyncio.to_thread(publish, clean.redis_url, channels)
        return await all_are(heard)

    await wire.join(channels)
    await eventually(lambda: all_are(joined))
    await asyncio.gather(wire.leave(channels), wire.join(channels))
    heard.clear()
    await eventually(subscribed)
    await end([listening])


def publish(url: str, channels: list[str]) -> None:
    with Redis.from_url(url) as client:
        pipe = client.pipeline(transaction=False)
        for channel in channels:
            pipe.publish(channel, json.dumps("x"))
        pipe.execute()
