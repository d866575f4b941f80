"""What clients do wrong on purpose: the process stays as it is, and everyone else is served."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from quart.testing.connections import WebsocketDisconnectError
from websockets.exceptions import ConnectionClosed
from werkzeug.datastructures import Headers

from tests.conftest import Place
from tests.web.conftest import serving
from tests.web.following import (
    Hand,
    Served,
    connect,
    connect_many,
    deaf,
    drain,
    flooded,
    follow,
    on_one_database,
    receive,
    told,
)
from tests.web.test_problems import MEGA, memory

pytestmark = on_one_database
BOUNDS: dict[str, Any] = {
    "MAX_SOCKETS_PER_TOKEN": "3", "MAX_FOLLOWS_PER_SOCKET": "5", "MAX_FRAMES_PER_SECOND": "1",
}  # fmt: skip


@pytest.fixture
async def other(served: Served, secret: str, hand: Hand) -> AsyncIterator[None]:
    """Someone else, who is served all the while; and the process grows by little."""
    job_id, before = await hand.start(), memory(served.pid)
    async with connect(served, job_id, secret, after=2) as socket:
        yield
        await hand.say(job_id, "still here")
        assert told(await receive(socket, 1)) == ["still here"]
    assert memory(served.pid) - before < 30 * MEGA
    assert "Traceback" not in served.log.read_text()


async def refusal(socket: Any) -> tuple[int, str]:
    """The code and the reason it is closed with."""
    await drain(socket)
    return socket.close_code, socket.close_reason


async def test_each_bound_says_what_it_is(clean: Place, secret: str, tmp_path: Path) -> None:
    with serving(clean, tmp_path / "log", **BOUNDS) as web:
        async with connect_many(web, secret) as one, connect_many(web, secret) as other:
            await one.send(json.dumps({"follow": [str(number) for number in range(6)]}))
            assert await refusal(one) == (1013, "too many: a socket may follow 5 jobs")
            with suppress(ConnectionClosed):
                for _ in range(30):
                    await other.send("{}")
            assert await refusal(other) == (1013, "too many frames")
        async with AsyncExitStack() as stack:
            for _ in range(3):
                socket = await stack.enter_async_context(connect_many(web, secret))
                await socket.send("{}")
                await receive(socket, 1)  # answered, and so counted before the fourth comes
            async with connect_many(web, secret) as fourth:
                assert await refusal(fourth) == (1013, "too many: a token may have 3 sockets")


async def test_streams_count_as_sockets_do(
    clean: Place, secret: str, hand: Hand, tmp_path: Path
) -> None:
    job_id = await hand.start()
    headers = {"Authorization": f"Bearer {secret}", "Accept": "text/event-stream"}
    with serving(clean, tmp_path / "log", **BOUNDS | {"MAX_SOCKETS_PER_TOKEN": "1"}) as web:
        async with connect(web, job_id, secret) as socket, httpx.AsyncClient() as http:
            await receive(socket, 2)
            answer = await http.get(f"{web.address}/api/jobs/{job_id}/events", headers=headers)
            assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)


@pytest.mark.parametrize("by", ["serve", "hypercorn", "uvicorn"])
async def test_a_frame_that_is_too_big_is_refused_by_each_server(
    clean: Place, secret: str, tmp_path: Path, by: str
) -> None:
    with serving(clean, tmp_path / "log", by=by) as web:
        async with connect_many(web, secret) as socket:
            await socket.send("x" * 65_536)
            assert [frame["type"] for frame in await receive(socket, 1)] == ["error"]
            await socket.send("x" * 65_537)
            assert await refusal(socket) == (1009, "too big: a frame may have 65536 bytes")
    assert "Traceback" not in web.log.read_text()


@pytest.mark.parametrize("path", ["/ws", "/ws/jobs/x"])
async def test_a_frame_without_end_is_not_kept(
    served: Served, secret: str, other: None, path: str
) -> None:
    with deaf(served, path, secret) as client:
        client.sendall(b"\x81\xff" + (2**40).to_bytes(8) + b"\0\0\0\0")
        with pytest.raises(OSError, match=r"reset|pipe"):
            await asyncio.to_thread(send_for_ever, client)


def send_for_ever(client: socket.socket) -> None:
    for _ in range(100_000):
        client.sendall(b"x" * 65_536)


async def test_ten_megabytes_in_a_frame_are_refused(
    served: Served, secret: str, other: None
) -> None:
    async with connect_many(served, secret, compression=None) as socket:
        assert await flooded(socket, "x" * 10 * MEGA) in (1009, 1006)


@pytest.mark.parametrize("frame", ["{}", '{"follow": ["x"]}', b"", "x" * 60_000])
async def test_a_flood_is_closed_with_1013(
    served: Served, secret: str, other: None, frame: str | bytes
) -> None:
    async with connect_many(served, secret) as socket:
        assert await flooded(socket, frame) == 1013


async def test_what_may_wait_to_be_read_is_bounded_however_fast_one_may_send(
    clean: Place, secret: str
) -> None:
    app = clean.app(MAX_FRAMES_PER_SECOND=1_000)
    headers = Headers({"Authorization": f"Bearer {secret}"})
    async with app.test_app(), app.test_client().websocket("/ws", headers=headers) as socket:
        for _ in range(17):  # all before the application has its turn to read one
            await socket.send("x" * 65_536)
        with pytest.raises(WebsocketDisconnectError, match="1013"):
            await asyncio.wait_for(read_on(socket), 10)


async def read_on(socket: Any) -> None:
    while True:
        await socket.receive()


async def test_ten_thousand_jobs_are_too_many(served: Served, secret: str, other: None) -> None:
    async with connect_many(served, secret) as socket:
        for start in range(0, 10_000, 1_000):
            ids = unknown(start, start + 1_000)
            await socket.send(json.dumps({"follow": ids}))
        assert (await drain(socket))[1] == 1013


def unknown(start: int, stop: int) -> list[str]:
    """Ids that are none of a job's."""
    return [f"{number:036}" for number in range(start, stop)]


async def test_a_thousand_unknown_jobs_are_each_named(
    served: Served, secret: str, other: None
) -> None:
    ids = unknown(0, 1_000)
    async with connect_many(served, secret) as socket:
        await socket.send(json.dumps({"follow": ids}))
        assert [frame["job"] for frame in await receive(socket, 1_000)] == ids


async def test_whatever_is_sent_is_answered_or_closed(
    served: Served, secret: str, other: None
) -> None:
    chance = random.Random(5)
    for _ in range(30):
        async with connect_many(served, secret) as socket:
            for frame in (senseless(chance) for _ in range(10)):
                await socket.send(frame)
                assert (await receive(socket, 1))[0]["type"] in ("error", "pong")


def senseless(chance: random.Random) -> str | bytes:
    """Something near to what makes sense: bytes, or JSON that is cut, wrong or turned about."""
    odd: list[Any] = [None, True, -1, 2**70, 1.5, "", "x\0", "\ud800", [], {}, [[]], {"x": "y"}]
    words = ["ping", "follow", "unfollow", "after", "folow"]
    frame = json.dumps({chance.choice(words): chance.choice(odd), "ping": chance.choice(odd)})
    kinds: list[str | bytes] = [
        frame,
        frame[: chance.randrange(len(frame))],
        frame.encode(),
        f"[{frame}]",
    ]
    return chance.choice([*kinds, chance.randbytes(20)])


async def test_connections_that_are_cut_leave_nothing_behind(
    served: Served, secret: str, hand: Hand, other: None
) -> None:
    job_id = await hand.start()
    for _ in range(50):
        for path in (f"/ws/jobs/{job_id}", "/ws", "/ws"):
            with deaf(served, path, secret) as client:
                client.sendall(b"\x81\xfe\x10\x00half of a frame")
    await hand.succeed(job_id)
    assert (await follow(served, job_id, secret))[1] == 1000


def frame(first: int, payload: bytes = b"", *, masked: bool = True) -> bytes:
    """As a client sends it, of up to 65,535 bytes; `first` has FIN and the opcode."""
    bit, mask = (0x80, b"\0\0\0\0") if masked else (0, b"")
    size = bytes([bit | len(payload)])
    if len(payload) > 125:
        size = bytes([bit | 126]) + len(payload).to_bytes(2)
    return bytes([first]) + size + mask + payload


BROKEN = {
    "not masked": frame(0x81, b"{}", masked=False),
    "no such opcode": frame(0x83, b"{}"),
    "reserved bits": frame(0xF1, b"{}"),
    "no text": frame(0x81, b"\xff\xfe"),
    "half a character": frame(0x01, b"\xe4") + frame(0x80, b"x"),
    "goes on with nothing": frame(0x80, b"{}"),
    "two at once": frame(0x01, b"{") + frame(0x81, b"{}"),
    "a long ping": frame(0x89, b"x" * 126),
    "a ping in pieces": frame(0x09, b"x"),
    "a close of one byte": frame(0x88, b"\x03"),
    "a close without a code": frame(0x88, b"\0\0"),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("path", ["/ws", "/ws/jobs/x"])
async def test_what_is_no_frame_ends_the_connection(
    served: Served, secret: str, other: None, path: str
) -> None:
    for name, sent in BROKEN.items():
        with deaf(served, path, secret) as client:
            client.settimeout(10)
            client.sendall(sent)
            assert await asyncio.to_thread(is_cut_off, client), name


async def test_random_bytes_end_the_connection(served: Served, secret: str, other: None) -> None:
    chance = random.Random(7)
    for _ in range(50):
        with deaf(served, "/ws", secret) as client:
            client.sendall(chance.randbytes(200))
            client.shutdown(socket.SHUT_WR)
            client.settimeout(10)
            assert await asyncio.to_thread(is_cut_off, client)


def is_cut_off(client: socket.socket) -> bool:
    try:
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize("path", ["/ws", "/ws/jobs/x"])
@pytest.mark.parametrize(
    "pieces", [frame(0x89, b"x" * 125), frame(0x8A), frame(0x00), frame(0x01, b"x")],
    ids=["pings", "pongs", "empty pieces", "beginnings"],
)  # fmt: skip
async def test_a_flood_below_the_frames_harms_nobody(
    served: Served, secret: str, other: None, path: str, pieces: bytes
) -> None:
    with deaf(served, path, secret) as client:
        client.settimeout(10)
        client.sendall(frame(0x01, b"x"))
        try:
            await asyncio.to_thread(client.sendall, pieces * 100_000)
        except OSError:
            return  # refused, or not read any more


async def test_ten_thousand_jobs_in_one_frame_are_too_big(
    served: Served, secret: str, other: None
) -> None:
    ids = unknown(0, 10_000)
    async with connect_many(served, secret) as socket:
        await socket.send(json.dumps({"follow": ids}))
        assert (await drain(socket))[1] == 1009
