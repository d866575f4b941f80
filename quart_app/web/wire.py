"""The one Redis subscription of a web process: channels come and go, announcements arrive."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from quart_app.seldom import Seldom

_NOBODYS = "quartermaster"  # subscribed to no channel at all, redis-py would not listen
_BATCH = 500
_AGAIN = 1.0
_SILENCE = 4.0  # of a Redis that is asked for a sign of life every second

logger = logging.getLogger(__name__)


class Wire:
    """Calls `heard(channel, frame)`, and `joined(channel)` from when on nothing is missed on it."""

    def __init__(
        self, url: str, heard: Callable[[str, Any], None], joined: Callable[[str], None]
    ) -> None:
        self._url, self._heard, self._joined = url, heard, joined
        self._channels: set[str] = set()
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._warnings = Seldom()

    @property
    def is_up(self) -> bool:
        return self._pubsub is not None

    async def join(self, channels: Collection[str]) -> None:
        fresh = [channel for channel in channels if channel not in self._channels]
        self._channels.update(fresh)
        await self._tell("subscribe", fresh)

    async def leave(self, channels: Collection[str]) -> None:
        self._channels.difference_update(channels)
        await self._tell("unsubscribe", list(channels))

    async def listen(self) -> None:
        """Hears announcements for as long as the process serves, through any loss of Redis."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # all who follow depend on it: it goes on
                self._warnings.warn(logger, "Redis is away, following rows instead", error)
            finally:
                self._pubsub = None
            await asyncio.sleep(_AGAIN)

    async def _tell(self, verb: str, channels: list[str]) -> None:
        if (pubsub := self._pubsub) is None:
            return  # it is told them all when it comes back
        is_joined = verb == "subscribe"
        try:
            for start in range(0, len(channels), _BATCH):
                batch = channels[start : start + _BATCH]
                # What was left or joined again meanwhile is somebody else's to tell.
                now = [channel for channel in batch if (channel in self._channels) == is_joined]
                await _say(getattr(pubsub, verb), now)
        except Exception as error:  # redis-py stumbles in many ways over what is cut off meanwhile
            logger.warning("Redis did not take a %s: %s", verb, type(error).__name__)
            if self._pubsub is pubsub:
                self._pubsub = None  # so that whoever listens begins anew

    async def _listen(self) -> None:
        # Each of us would else connect again at the same moment, and read what another waits for.
        never = Retry(NoBackoff(), 0, supported_errors=())
        client = redis.asyncio.from_url(self._url, socket_connect_timeout=2, retry=never)
        async with client, client.pubsub() as pubsub:
            await pubsub.subscribe(_NOBODYS)
            self._pubsub = pubsub
            await self._tell("subscribe", list(self._channels))
            while self._pubsub is pubsub:
                await self._hear_one(pubsub)

    async def _hear_one(self, pubsub: redis.asyncio.client.PubSub) -> None:
        """The next announcement; a Redis that is frozen or cut off is found out by its silence."""
        async with asyncio.timeout(_SILENCE):
            while (message := await pubsub.get_message(timeout=1)) is None:
                await pubsub.ping()
        try:
            self._dispatch(message)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            logger.warning("Something that is no announcement came by Redis.")

    def _dispatch(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._joined(message["channel"].decode())
        elif message["type"] == "message":
            self._heard(message["channel"].decode(), json.loads(message["data"]))


async def _say(verb: Callable[..., Awaitable[Any]], channels: list[str]) -> None:
    if channels:  # none would mean all
        async with asyncio.timeout(1):
            await verb(*channels)
