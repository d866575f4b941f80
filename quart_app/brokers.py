"""The brokers that doorbells are rung on: Redis, spoken to directly, or any other through kombu."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from kombu.resource import Resource
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from quart_app.doorbell import Foundry, Ring, job_of, message, redis_py_url

#: How many of the messages that have waited longest are looked at.
_TAIL = 10
_REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits on the broker for one queue."""

    count: int
    #: Per list that is not empty, the jobs whose doorbells have waited longest, as far as known.
    oldest: Mapping[str, Sequence[str]]


class Broker(Protocol):
    """Each call answers within the broker's deadline, or raises what its library raises."""

    def cast(self, ring: Ring) -> Any:
        """The message to push; raises whatever a route or a receiver of Celery's signals raises."""

    def push(self, cast: Sequence[tuple[Ring, Any]]) -> dict[str, int]:
        """How many messages wait afterwards in the list of each queue, as far as it tells."""

    def waiting(self, queue: str) -> Waiting:
        """What waits for the queue."""

    def ping(self) -> None:
        """Returns when it answers."""

    def close(self) -> None:
        """Leaves it."""


def broker(foundry: Foundry, url: str, timeout: float) -> Broker:
    """Connects when first used; `timeout` in seconds."""
    if url.startswith(_REDIS_SCHEMES) and ";" not in url:
        return RedisBroker(foundry, url, timeout)
    return KombuBroker(foundry, url, timeout)


def connect(url: str, timeout: float) -> Redis:
    """A client that answers or fails within `timeout` seconds and never tries twice."""
    return Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )


class RedisBroker:
    """Pushes the bytes that kombu would push, many in one exchange."""

    def __init__(self, foundry: Foundry, url: str, timeout: float) -> None:
        self._foundry = foundry
        self._redis = connect(redis_py_url(url), timeout)

    def cast(self, ring: Ring) -> tuple[str, bytes]:
        return self._foundry.cast(ring)

    def push(self, cast: Sequence[tuple[Ring, Any]]) -> dict[str, int]:
        pipe = self._redis.pipeline(transaction=False)
        for _, (key, text) in cast:
            pipe.lpush(key, text)
        replies = pipe.execute(raise_on_error=False)
        if refused := next(filter(_is_refusal, replies), None):
            raise refused
        lengths = zip(cast, replies, strict=True)
        return {ring.queue: length for (ring, _), length in lengths if isinstance(length, int)}

    def waiting(self, queue: str) -> Waiting:
        lists = self._foundry.lists(queue)
        pipe = self._redis.pipeline(transaction=False)
        for key in lists:
            pipe.llen(key)
            pipe.lrange(key, -_TAIL, -1)
        replies: list[Any] = pipe.execute()
        tails = zip(lists, replies[1::2], strict=True)
        oldest = {
            key: [job for text in tail if (job := job_of(text))] for key, tail in tails if tail
        }
        return Waiting(sum(replies[::2]), oldest)

    def ping(self) -> None:
        self._redis.ping()

    def close(self) -> None:
        self._redis.close()


def _is_refusal(reply: Any) -> bool:
    """Whether Redis takes nothing now, as when it is full.

    A list that cannot be pushed to is for the relay to find out; the others are served.
    """
    return isinstance(reply, RedisError) and not str(reply).startswith("WRONGTYPE")


class KombuBroker:
    """Publishes by kombu, over connections of its own with a deadline."""

    def __init__(self, foundry: Foundry, url: str, timeout: float) -> None:
        self._foundry, self._celery = foundry, foundry.celery
        self._url, self._timeout = url, timeout

    def cast(self, ring: Ring) -> dict[str, Any]:
        return message(self._celery, ring)

    def push(self, cast: Sequence[tuple[Ring, Any]]) -> dict[str, int]:
        once = {"retry": False, "timeout": self._timeout, "confirm_timeout": self._timeout}
        with self._pool.acquire(block=True, timeout=self._timeout) as connection:
            try:
                producer = self._celery.amqp.Producer(connection, auto_declare=False)
                for _, published in cast:
                    producer.publish(**published | once)
            except Exception:
                connection.collect()  # the next one connects anew
                raise
        return {}

    def waiting(self, queue: str) -> Waiting:
        with self._pool.acquire(block=True, timeout=self._timeout) as connection:
            try:
                with connection.channel() as channel:
                    count = channel.queue_declare(queue=queue, passive=True).message_count
            except connection.channel_errors:  # no worker and no message has made it yet
                count = 0
        return Waiting(count, dict.fromkeys(self._foundry.lists(queue), ()) if count else {})

    def ping(self) -> None:
        with self._pool.acquire(block=True, timeout=self._timeout) as connection:
            connection.ensure_connection(max_retries=1)

    def close(self) -> None:
        if "_pool" in self.__dict__:
            self.__dict__.pop("_pool").force_close_all()

    @cached_property
    def _pool(self) -> Resource:
        # Only the AMQP transport knows these; others stumble over what they do not know.
        deadlines = {"read_timeout": self._timeout, "write_timeout": self._timeout}
        amqp = {"confirm_publish": True, **deadlines} if "amqp" in self._url[:6] else {}
        connection = self._celery.connection_for_write(
            self._url, connect_timeout=self._timeout, transport_options=amqp
        )
        return connection.Pool(limit=2)
