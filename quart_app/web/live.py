"""Live progress: what Redis announces reaches whoever follows, and rows carry on without it."""

import asyncio
import contextlib
import logging
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from typing import Any

from quart import Quart, current_app
from sqlalchemy import select
from sqlalchemy.orm import Session

from quart_app import db, tokens
from quart_app.models import Job
from quart_app.publisher import CHANNEL, FEED
from quart_app.seldom import Seldom
from quart_app.web import peers
from quart_app.web.feed import Feed
from quart_app.web.follower import TOO_MANY, Follower, Leave
from quart_app.web.reader import Reader
from quart_app.web.wire import Wire

_BATCH = 500
_READS = 8  # at a time, of the connections that requests want, too
_MAKE_SURE_EVERY = 0.1
_LOOK_EVERY = 1.0  # with Redis away
_LOOK_ANYWAY = 5  # an announcement may be lost
_CHECK_TOKENS_EVERY = 2.0
_RESTART, _SIGNED_OUT = (1012, "restarting: reconnect with after"), (4401, "token revoked or ended")

logger = logging.getLogger(__name__)
_warnings = Seldom()


def init_app(app: Quart) -> None:
    hub = Hub(app)
    app.extensions["live"] = hub
    app.before_serving(hub.start)
    app.after_serving(hub.stop)


def get() -> "Hub":
    """The hub of the current application."""
    hub: Hub = current_app.extensions["live"]
    return hub


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancels until all have ended: the clients of Redis and databases may swallow it once."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)
    await asyncio.gather(*tasks, return_exceptions=True)


class Hub:
    """All who follow jobs in this process, by one Redis subscription, however many there are."""

    #: Seconds after which a quiet stream shows that it is alive.
    heartbeat = 15.0

    def __init__(self, app: Quart) -> None:
        self._database: db.Database = app.extensions["db"]
        self._most_readers: int = app.config["MAX_SOCKETS_PER_TOKEN"]
        self._wire = Wire(app.config["REDIS_URL"], self._heard, self._joined)
        self._readers: set[Reader] = set()
        self._count: Counter[str] = Counter()
        self._followers: dict[str, set[Follower]] = defaultdict(set)
        self._unsure: set[str] = set()
        self._looks = 0
        self._watches_peers = False
        self._tasks: list[asyncio.Task[None]] = []
        self._begin_anew()

    def _begin_anew(self) -> None:
        """With nothing that belongs to the loop of an earlier start."""
        self._draining = False
        self._feed = Feed(self._read)
        self._reading = asyncio.Semaphore(_READS)

    @contextlib.asynccontextmanager
    async def open(self, token_id: str, *, lasting: bool = False) -> AsyncIterator[Reader]:
        """A reader for one socket or stream; raises Leave when its token has too many."""
        if not self.has_room(token_id):
            raise Leave(TOO_MANY, f"too many: a token may have {self._most_readers} sockets")
        if not self._watches_peers:  # not before: a server may listen later than it starts us
            self._watches_peers = True
            peers.watch()
        reader = Reader(token_id, self._read, self._begin, self._end, lasting)
        if self._draining:
            reader.send_away(Leave(*_RESTART))
        self._readers.add(reader)
        self._count[token_id] += 1
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            self._count[token_id] -= 1
            await self.ignore_all(reader)
            await reader.unfollow(reader.followers)

    def has_room(self, token_id: str) -> bool:
        return self._count[token_id] < self._most_readers

    async def follow_all(self, reader: Reader) -> None:
        self._feed.readers.add(reader)
        await self._wire.join([FEED])
        if not self._wire.is_up:
            await self._feed.begin()

    async def ignore_all(self, reader: Reader) -> None:
        if reader in self._feed.readers:
            self._feed.readers.discard(reader)
            if not self._feed.readers:
                await self._wire.leave([FEED])

    def drain(self) -> None:
        """Has every reader go elsewhere, and whoever comes from now on."""
        self._draining = True
        for reader in self._readers:
            reader.send_away(Leave(*_RESTART))

    @property
    def readers(self) -> int:
        """How many sockets and streams are open in this process."""
        return len(self._readers)

    @property
    def token_ids(self) -> set[str]:
        """Those that sockets and streams are open for."""
        return {reader.token_id for reader in self._readers}

    async def start(self) -> None:
        self._begin_anew()
        self._tasks = [
            asyncio.create_task(self._wire.listen()),
            asyncio.create_task(_again(_LOOK_EVERY, self._look)),
            asyncio.create_task(_again(_MAKE_SURE_EVERY, self._make_sure)),
            asyncio.create_task(_again(_CHECK_TOKENS_EVERY, self._check_tokens)),
        ]
        if stop := _hypercorns_stop():
            self._tasks.append(asyncio.create_task(_again(0.1, lambda: self._drain_at(stop))))

    async def stop(self) -> None:
        self.drain()
        await end(self._tasks)

    async def _read(self, verb: Callable[..., Any], *args: Any) -> Any:
        async with self._reading:
            return await self._database.read(verb, *args)

    async def _begin(self, followers: Collection[Follower]) -> None:
        for follower in followers:
            self._followers[follower.job_id].add(follower)
        await self._wire.join([CHANNEL + follower.job_id for follower in followers])

    async def _end(self, followers: Collection[Follower]) -> None:
        for follower in followers:
            self._followers[follower.job_id].discard(follower)
        lonely = [each.job_id for each in followers if not self._followers.get(each.job_id, True)]
        for job_id in lonely:
            del self._followers[job_id]
        await self._wire.leave([CHANNEL + job_id for job_id in lonely])

    def _heard(self, channel: str, frame: Any) -> None:
        if channel == FEED:
            self._feed.hear(frame)
            return
        for follower in tuple(self._followers.get(channel.removeprefix(CHANNEL), ())):
            follower.hear(frame)

    def _joined(self, channel: str) -> None:
        # From here on nothing is missed; what came before is in the rows.
        self._unsure.add(channel.removeprefix(CHANNEL))

    async def _look(self) -> None:
        """Looks at the rows of all followed jobs, each time while Redis is away."""
        self._looks += 1
        if not self._wire.is_up:
            await self._feed.look()
            await self._look_at(self._followers)
        else:
            self._feed.trust()
            if self._looks % _LOOK_ANYWAY == 0:
                await self._look_at(self._followers)

    async def _make_sure(self) -> None:
        unsure, self._unsure = self._unsure, set()
        try:
            await self._look_at(unsure & self._followers.keys())
        except Exception:
            self._unsure |= unsure
            raise

    async def _look_at(self, job_ids: Iterable[str]) -> None:
        """Has those look who have not seen all that the rows say."""
        ids = sorted(job_ids)
        for start in range(0, len(ids), _BATCH):
            for row in await self._read(_newest, ids[start : start + _BATCH]):
                for follower in tuple(self._followers.get(row.id, ())):
                    follower.compare(row.last_seq, row.progress)

    async def _check_tokens(self) -> None:
        if not (ids := self.token_ids):
            return
        ended = ids - await self._database.read(tokens.valid_ids, ids)
        for reader in self._readers:
            if reader.token_id in ended:
                reader.send_away(Leave(*_SIGNED_OUT))

    async def _drain_at(self, stop: Any) -> None:
        if stop.is_set():
            self.drain()


async def _again(seconds: float, verb: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await verb()
        except Exception as error:  # the database may be back next time
            _warnings.warn(logger, "Those who follow jobs have to wait", error)


def _hypercorns_stop() -> Any:
    """What a worker process of Hypercorn is told to stop by, which it itself does too late.

    It waits for open sockets before the application hears of it.
    """
    options = getattr(multiprocessing.current_process(), "_kwargs", {})
    return options.get("shutdown_event")


def _newest(session: Session, ids: list[str]) -> Any:
    wanted = select(Job.id, Job.last_seq, Job.progress).where(Job.id.in_(ids))
    return session.execute(wanted).all()
