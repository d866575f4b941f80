"""An application may be started and ended again and again, each time in a loop of its own."""

import asyncio
import threading
from typing import Any

import pytest
from quart import Quart

from quart_app.serving import while_serving
from tests.conftest import Place, speaking
from tests.ledger import Ledger
from tests.real import eventually


def test_an_application_serves_again_after_it_has_ended(clean: Place, token: str) -> None:
    app, before = clean.app(), relays()
    for _ in range(3):
        asyncio.run(serve(app, token))
        assert relays() == before


def relays() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "relay"}


async def serve(app: Quart, token: str) -> None:
    """With what needs a beginning and an end: the publisher, the relay, sockets and figures."""
    async with app.test_app() as serving:
        client = speaking(app, token)
        job_id = (await (await client.post("/task")).get_data(as_text=True)).strip()
        await eventually(lambda: published(app, job_id))
        headers = {"Authorization": f"Bearer {token}"}
        async with serving.test_client().websocket("/ws", headers=headers) as feed:
            await feed.send_json({"follow": [job_id]})
            assert (await feed.receive_json())["seq"] == 1
            await asyncio.to_thread(Ledger(app).cancel, job_id)
            assert (await feed.receive_json())["state"] == "cancelled"
        metrics = await (await client.get("/metrics")).get_data(as_text=True)
        assert "quartermaster_event_loop_lag_seconds_bucket" in metrics


async def published(app: Quart, job_id: str) -> Any:
    return (await asyncio.to_thread(Ledger(app).job, job_id)).published_at


async def test_what_could_not_begin_begins_at_the_next_start() -> None:
    app, told = Quart(__name__), list[str]()

    @while_serving(app)
    async def serving() -> Any:
        told.append("begin")
        if len(told) == 1:
            raise OSError
        yield
        told.append("end")

    with pytest.raises(OSError):  # noqa: PT011
        await app.startup()
    for _ in range(2):
        await app.startup()
        await app.shutdown()
    assert told == ["begin", *["begin", "end"] * 2]


async def test_what_began_ends_before_it_begins_again_when_another_part_failed() -> None:
    app, told = Quart(__name__), list[str]()

    @while_serving(app)
    async def serving() -> Any:
        told.append("begin")
        yield
        told.append("end")

    @while_serving(app)
    async def failing() -> Any:
        if len(told) == 1:
            raise OSError
        yield

    with pytest.raises(OSError):  # noqa: PT011
        await app.startup()
    await app.startup()
    await app.shutdown()
    assert told == ["begin", "end"] * 2
