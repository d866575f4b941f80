"""Following a job over its socket, and doing by hand what a worker does."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import websockets
from quart import Quart
from websockets.asyncio.client import ClientConnection

from quart_app import attempts, db, jobs
from quart_app.attempts import Line
from quart_app.events import Frame, progress_frame

Frames = list[dict[str, Any]]
COUNT = "tests.sample_tasks.count"
#: For what the database has no part in.
on_one_database = pytest.mark.parametrize("places", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Served:
    """Where a web process answers, and who it is."""

    address: str
    pid: int
    log: Path
    process: Any

    @property
    def socket_address(self) -> str:
        return self.address.replace("http", "ws")


class Hand:
    """Does by hand what a worker does, so that a test decides when."""

    def __init__(self, app: Quart) -> None:
        self.app = app

    async def do(self, verb: Any, *args: Any, **options: Any) -> Any:
        async with self.app.app_context():
            return await db.run(verb, *args, **options)

    async def submit(self) -> str:
        given = {"kwargs": {"steps": 1}, "queue": "by.hand"}
        return str((await self.do(jobs.submit, COUNT, **given)).id)

    async def start(self) -> str:
        job_id = await self.submit()
        assert await self.do(attempts.claim, job_id, COUNT, "w", 600.0)
        return job_id

    async def say(self, job_id: str, *lines: str, progress: int | None = None) -> None:
        said = [Line(datetime.now(UTC), "info", line) for line in lines]
        now = None if progress is None else step(progress)
        await self.do(attempts.keep, job_id, 1, 600.0, lines=said, progress=now)
        if now:
            self.announce(progress_frame(job_id, now))

    def announce(self, frame: Frame) -> None:
        self.app.extensions["publisher"].announce([frame])

    async def succeed(self, job_id: str) -> None:
        await self.do(attempts.succeed, job_id, 1, "done")

    async def whole_job(self, lines: int = 2) -> str:
        job_id = await self.start()
        await self.say(job_id, *numbered(lines))
        await self.succeed(job_id)
        return job_id


def step(current: int) -> dict[str, Any]:
    return {"current": current, "total": 100, "message": ""}


def numbered(lines: int) -> list[str]:
    return [f"line {number}" for number in range(1, lines + 1)]


def connect(served: Served, job_id: str, secret: str, after: Any = 0, **more: Any) -> Any:
    return _connect(served, f"/ws/jobs/{job_id}?after={after}", secret, **more)


def connect_many(served: Served, secret: str, **more: Any) -> Any:
    return _connect(served, "/ws", secret, **more)


def _connect(served: Served, path: str, secret: str, **more: Any) -> Any:
    headers = {"Authorization": f"Bearer {secret}"} | more.pop("headers", {})
    address = f"{served.socket_address}{path}"
    options = {"additional_headers": headers, "proxy": None, "open_timeout": 60}
    return websockets.connect(address, **options, **more)


async def drain(socket: ClientConnection) -> tuple[Frames, int]:
    """All frames until the socket is closed, and the code it is closed with."""
    frames = []
    async with asyncio.timeout(30):
        try:
            while True:
                frames.append(json.loads(await socket.recv()))
        except websockets.ConnectionClosed as closed:
            return frames, closed.rcvd.code if closed.rcvd else 1006


async def follow(*args: Any, **more: Any) -> tuple[Frames, int]:
    async with connect(*args, **more) as socket:
        return await drain(socket)


async def receive(socket: ClientConnection, count: int) -> Frames:
    async with asyncio.timeout(20):
        return [json.loads(await socket.recv()) for _ in range(count)]


async def flooded(socket: ClientConnection, frame: str | bytes) -> int:
    """Sends until the socket is closed, reading all the while; the code it is closed with."""
    reading = asyncio.create_task(drain(socket))
    with suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(25):
            while True:
                await socket.send(frame)
                await asyncio.sleep(0)
    return (await reading)[1]


@contextmanager
def deaf(served: Served, path: str, secret: str) -> Iterator[socket.socket]:
    """A client that opens a socket and then reads nothing any more."""
    host = served.address.removeprefix("http://")
    asked = (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {secret}\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port))) as client:
        client.sendall(asked.encode())
        assert client.recv(12) == b"HTTP/1.1 101"
        yield client


def stored(frames: Frames) -> Frames:
    return [frame for frame in frames if "seq" in frame]


def told(frames: Frames) -> list[str]:
    return [frame.get("state") or frame["message"] for frame in stored(frames)]
