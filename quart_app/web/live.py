"""Live progress: what Redis announces reaches whoever follows, and rows carry on without it."""

import asyncio
import contextlib
import json
import logging
import multiprocessing
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import redis.asyncio
from quart import Quart
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.orm import Session

from quart_app import db, tokens
from quart_app.models import Job, JobState
from quart_app.publisher import CHANNEL
from quart_app.web.follower import Follower, Leave

_BATCH = 500
_LOOK_EVERY = 1.0  # with Redis away
_LOOK_ANYWAY = 5  # an announcement may be lost
_CHECK_TOKENS_EVERY = 2.0
_SILENCE = 4.0  # of a Redis that is asked for a sign of life every second
_RESTART, _SIGNED_OUT = (1012, "restarting: reconnect with after"), (4401, "token revoked")

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> None:
    hub = Hub(app)
    app.extensions["live"] = hub
    app.before_serving(hub.start)
    app.after_serving(hub.stop)


class Hub:
    """One Redis subscription for all followers of this process, however many there are."""

    #: Seconds after which a quiet stream shows that it is alive.
    heartbeat = 15.0

    def __init__(self, app: Quart) -> None:
        self._url: str = app.config["REDIS_URL"]
        self._database: db.Database = app.extensions["db"]
        self._followers: dict[str, set[Follower]] = defaultdict(set)
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._looks = 0
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def follow(self, job_id: str, after: int, token_id: str) -> AsyncIterator[Follower]:
        follower = Follower(self._database, job_id, after, token_id)
        if self._draining:
            follower.send_away(Leave(*_RESTART))
        self._followers[job_id].add(follower)
        try:
            if len(self._followers[job_id]) == 1:
                await self._tell(lambda pubsub: pubsub.subscribe(CHANNEL + job_id))
            yield follower
        finally:
            self._followers[job_id].discard(follower)
            if not self._followers[job_id]:
                del self._followers[job_id]
                await self._tell(lambda pubsub: pubsub.unsubscribe(CHANNEL + job_id))

    def drain(self) -> None:
        """Has every follower go elsewhere, and whoever comes from now on."""
        self._draining = True
        for follower in self._everyone():
            follower.send_away(Leave(*_RESTART))

    def open(self) -> int:
        """How many follow a job in this process."""
        return len(self._everyone())

    async def start(self) -> None:
        self._draining = False
        self._tasks = [
            asyncio.create_task(self._listen()),
            asyncio.create_task(_again(_LOOK_EVERY, self._look)),
            asyncio.create_task(_again(_CHECK_TOKENS_EVERY, self._check_tokens)),
        ]
        if stop := _hypercorns_stop():
            self._tasks.append(asyncio.create_task(_again(0.1, lambda: self._drain_at(stop))))

    async def stop(self) -> None:
        self.drain()
        pending = set(self._tasks)
        while pending:  # redis-py swallows a cancellation that comes while it connects
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.2)

    def _everyone(self) -> list[Follower]:
        return [follower for those in self._followers.values() for follower in those]

    async def _tell(self, say: Callable[[redis.asyncio.client.PubSub], Awaitable[Any]]) -> None:
        if self._pubsub is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await say(self._pubsub)

    async def _listen(self) -> None:
        """Hears announcements for as long as the process serves, through any loss of Redis."""
        while True:
            try:
                await self._hear()
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("Redis is away, following rows instead: %s", type(error).__name__)
            finally:
                self._pubsub = None
            await asyncio.sleep(_LOOK_EVERY)

    async def _hear(self) -> None:
        client = redis.asyncio.from_url(self._url, socket_connect_timeout=2)
        async with client, client.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            self._pubsub = pubsub
            for job_id in tuple(self._followers):
                await pubsub.subscribe(CHANNEL + job_id)
            while True:
                await self._hear_one(pubsub)

    async def _hear_one(self, pubsub: redis.asyncio.client.PubSub) -> None:
        """The next announcement; a Redis that is frozen or cut off is found out by its silence."""
        async with asyncio.timeout(_SILENCE):
            while (message := await pubsub.get_message(timeout=1)) is None:
                await pubsub.ping()
        try:
            self._dispatch(message)
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("Something that is no announcement came by Redis.")

    def _dispatch(self, message: dict[str, Any]) -> None:
        if message["type"] not in ("subscribe", "message"):
            return
        job_id = message["channel"].decode().removeprefix(CHANNEL)
        those = tuple(self._followers.get(job_id, ()))
        if message["type"] == "subscribe":
            # From here on nothing is missed; what came before is in the rows.
            for follower in those:
                follower.look()
        elif those:
            frame = json.loads(message["data"])
            for follower in those:
                follower.hear(frame)

    async def _look(self) -> None:
        """Looks at the rows of all followed jobs, each time while Redis is away."""
        self._looks += 1
        if self._pubsub is not None and self._looks % _LOOK_ANYWAY:
            return
        followed = sorted(self._followers)
        for start in range(0, len(followed), _BATCH):
            part = followed[start : start + _BATCH]
            for row in await self._database.read(_states, part):
                for follower in tuple(self._followers.get(row.id, ())):
                    if row.last_seq > follower.cursor or row.state is JobState.RUNNING:
                        follower.look()

    async def _check_tokens(self) -> None:
        for token_id in {follower.token_id for follower in self._everyone()}:
            if await self._database.read(tokens.by_id, token_id) is None:
                for follower in self._everyone():
                    if follower.token_id == token_id:
                        follower.send_away(Leave(*_SIGNED_OUT))

    async def _drain_at(self, stop: Any) -> None:
        if stop.is_set():
            self.drain()


async def _again(seconds: float, verb: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await verb()
        except Exception as error:  # the database may be back next time
            logger.warning("Those who follow jobs have to wait: %s", type(error).__name__)


def _hypercorns_stop() -> Any:
    """What a worker process of Hypercorn is told to stop by, which it itself does too late.

    It waits for open sockets before the application hears of it.
    """
    options = getattr(multiprocessing.current_process(), "_kwargs", {})
    return options.get("shutdown_event")


def _states(session: Session, ids: list[str]) -> Any:
    return session.execute(select(Job.id, Job.state, Job.last_seq).where(Job.id.in_(ids))).all()
