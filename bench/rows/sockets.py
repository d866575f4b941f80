"""sockets: thousands of followers on one web process, and how soon an event is with the last."""

import asyncio
import base64
import os
import resource
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from bench.figures import Goal, Line
from bench.ours import NOTHING, Site, Web
from bench.rows.memory import megabytes
from bench.run import Run

_FOLLOWERS_OF_EACH = 10
_CONNECTING_AT_ONCE = 100
_DEADLINE = 400


def measure(run: Run) -> Sequence[Line]:
    jobs = run.pick(500, 20)
    _allow_files(2 * jobs * _FOLLOWERS_OF_EACH)
    site = Site(run, "sockets", env={"MAX_SOCKETS_PER_TOKEN": "20000"})
    with site.web() as web:
        later = [{"task": NOTHING, "delay": 3600}] * jobs
        ids = web.call("POST", "/api/jobs/batch", json={"jobs": later})["ids"]
        kilobytes, seconds = asyncio.run(_follow(run, site, web, ids))
    return [
        Line("sockets, each", "KB", [kilobytes], Goal("≤", 40)),
        Line("sockets, event at the last", "s", seconds, Goal("≤", 1)),
    ]


async def _follow(
    run: Run, site: Site, web: Web, ids: Sequence[str]
) -> tuple[float, Sequence[float]]:
    """Kilobytes of the web process for each socket, and seconds from a commit to the last frame."""
    before = megabytes(web.pid)
    followers = [Follower() for _ in range(len(ids) * _FOLLOWERS_OF_EACH)]
    places = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    loop = asyncio.get_running_loop()

    async def connect(follower: Follower, job_id: str) -> None:
        async with places:
            await loop.create_connection(lambda: follower, "127.0.0.1", web.port)
            follower.ask(web, job_id)
            await follower.heard(1)

    async with asyncio.timeout(_DEADLINE):
        wanted = zip(followers, list(ids) * _FOLLOWERS_OF_EACH, strict=True)
        await asyncio.gather(*(connect(*each) for each in wanted))
    held = (megabytes(web.pid) - before) * 1024 / len(followers)
    run.say(f"{len(followers)} sockets are open, {held:.1f} KB each")
    seconds = [await _event(run, site, ids, followers, turn) for turn in range(2, run.rounds + 2)]
    for follower in followers:
        follower.close()
    return held, seconds


async def _event(
    run: Run, site: Site, ids: Sequence[str], followers: Sequence["Follower"], seq: int
) -> float:
    """One event of every job, in one commit; until the last follower has its frame."""
    committed = await asyncio.to_thread(run.inside, "said", site.settings, ids=list(ids))
    async with asyncio.timeout(_DEADLINE):
        await asyncio.gather(*(follower.heard(seq) for follower in followers))
    took = max(follower.at for follower in followers) - committed
    run.say(f"event {seq} was with the last after {took:.3f} s")
    return took


class Follower(asyncio.Protocol):
    """A socket that only notes what came last, and when: thousands fit beside the server."""

    def __init__(self) -> None:
        self.at = 0.0
        self._seq = 0
        self._rest = b""
        self._waiting: tuple[int, asyncio.Future[None]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, web: Web, job_id: str) -> None:
        """Asks for the job's events from its first one on."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /ws/jobs/{job_id} HTTP/1.1",
            f"Host: {urlsplit(web.url).netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            f"Authorization: {web.headers['Authorization']}",
        ]
        self._transport.write("\r\n".join([*lines, "", ""]).encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._rest = (self._rest + data)[-4096:]
        _, found, after = self._rest.rpartition(b'"seq": ')
        if not found:
            return
        self._seq, self.at = int(after.partition(b",")[0]), time.monotonic()
        if self._waiting and self._seq >= self._waiting[0]:
            self._waiting[1].set_result(None)
            self._waiting = None

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting:
            self._waiting[1].set_exception(error or ConnectionError(repr(self._rest)))

    async def heard(self, seq: int) -> None:
        """Returns when the event has come."""
        if self._seq < seq:
            self._waiting = seq, asyncio.get_running_loop().create_future()
            await self._waiting[1]

    def close(self) -> None:
        self._transport.close()


def _allow_files(count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, 1_024), hard))
