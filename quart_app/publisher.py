"""The way to the broker: rings a job's doorbell after its commit, and makes nobody wait for it.

One thread per process pushes what commits leave behind, in batches and under a deadline, for every
broker alike. A doorbell may be lost, repeated or forged without harm, since the row decides; what
could not be delivered is rung again by the relay.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from quart import Quart, current_app
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.doorbell import Foundry, Ring, job_of, message, redis_py_url
from quart_app.events import Frame
from quart_app.models import Job

#: The frames of a job are announced on this channel, followed by the job's id.
CHANNEL = "quartermaster:job:"
#: Doorbells kept for one queue; the rest of a backlog waits in the database for the relay.
MOST_DOORBELLS = 1_000
_MOST_PENDING = 20_000
_BATCH = 500
_REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://")

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> "Publisher":
    publisher = Publisher(app)
    app.extensions["publisher"] = publisher
    app.extensions["db"].after_commit.append(publisher.committed)
    app.after_serving(publisher.close)
    return publisher


def get() -> "Publisher":
    """The publisher of the current application."""
    publisher: Publisher = current_app.extensions["publisher"]
    return publisher


def ring(session: Session, job: Job) -> None:
    """Has the job's doorbell rung once the transaction has been committed."""
    if get().has_room(job.queue):
        session.info.setdefault("rings", []).append(ring_for(job))


def ring_for(job: Job) -> Ring:
    return Ring(job.id, job.task, job.queue, job.priority)


def connect(url: str, timeout: float) -> Redis:
    """A client that answers or fails within `timeout` seconds and never tries twice."""
    return Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits on the broker for one queue."""

    count: int
    #: The job whose doorbell has waited longest.
    oldest: str | None


class Publisher:
    """Pushes doorbells to the broker and announces frames on Redis."""

    def __init__(self, app: Quart) -> None:
        self.database: db.Database = app.extensions["db"]
        self.celery = app.extensions["celery"]
        self.foundry = Foundry(self.celery)
        self.timeout: float = app.config["PUBLISH_TIMEOUT"]
        self.redis_url: str = app.config["REDIS_URL"]
        self.broker_url: str = app.config["CELERY_BROKER_URL"]
        self.on_redis = self.broker_url.startswith(_REDIS_SCHEMES)
        self._full: set[str] = set()
        self._quiet_until = 0.0
        self._busy = False
        self.forget_connections()

    def has_room(self, queue: str) -> bool:
        """False while the queue's list is full: its jobs wait in the database for the relay."""
        return queue not in self._full

    def committed(self, session: Session) -> None:
        """After a commit: takes what it left to be rung and announced, and returns at once."""
        rings, frames = session.info.pop("rings", []), session.info.pop("frames", [])
        with self._lock:
            room = _MOST_PENDING - len(self._pending)
            self._pending.extend([*rings, *frames][:room])
            if self._pending and not self._busy:
                self._busy = True
                self._thread.submit(self._drain)

    def push(self, rings: Sequence[Ring]) -> bool:
        """Rings now, in the caller's thread; False when the broker did not take them in time."""
        try:
            if self.on_redis:
                self._push_to_redis(rings)
            else:
                self._push_by_kombu(rings)
        except Exception as error:  # whatever a broker's library raises: the relay tries again
            self._warn(f"{len(rings)} messages", error)
            return False
        return True

    def announce(self, frames: Sequence[Frame]) -> bool:
        """Sends the frames to whoever follows their jobs; False when Redis did not take them."""
        try:
            pipe = self.live.pipeline(transaction=False)
            for frame in frames:
                pipe.publish(CHANNEL + frame["job"], json.dumps(frame, ensure_ascii=False))
            pipe.execute()
        except Exception as error:
            self._warn(f"{len(frames)} frames", error)
            return False
        return True

    def waiting(self, queues: Sequence[str]) -> dict[str, Waiting]:
        """What waits per queue; nothing is known of a broker other than Redis.

        Raises redis.RedisError when Redis does not answer in time.
        """
        return {queue: self._look(queue) for queue in queues} if self.on_redis else {}

    def ping(self) -> None:
        """Raises whatever the broker's library raises when it does not answer in time."""
        if self.on_redis:
            self.broker.ping()
        else:
            with self.celery.connection_for_write(connect_timeout=self.timeout) as connection:
                connection.ensure_connection(max_retries=1)

    def forget_connections(self) -> None:
        """In a forked child: the parent's thread and sockets are not its own."""
        for name in ("_thread", "broker", "live"):
            self.__dict__.pop(name, None)
        self._lock = threading.Lock()
        self._pending: deque[Ring | Frame] = deque()
        self._busy = False

    def close(self) -> None:
        if "_thread" in self.__dict__:
            self._thread.shutdown()
        for name in ("broker", "live"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()
        self.__dict__.pop("_thread", None)

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "publisher")

    @cached_property
    def broker(self) -> Redis:
        return connect(redis_py_url(self.broker_url), self.timeout)

    @cached_property
    def live(self) -> Redis:
        return connect(self.redis_url, self.timeout)

    def _drain(self) -> None:
        while batch := self._take():
            if rings := [item for item in batch if isinstance(item, Ring)]:
                self._push_and_mark(rings)
            if frames := [item for item in batch if not isinstance(item, Ring)]:
                self.announce(frames)

    def _take(self) -> list[Ring | Frame]:
        with self._lock:
            size = min(_BATCH, len(self._pending))
            self._busy = size > 0
            return [self._pending.popleft() for _ in range(size)]

    def _push_and_mark(self, rings: Sequence[Ring]) -> None:
        if self.push(rings):
            try:
                with self.database.session() as session:
                    _mark(session, [ring.job_id for ring in rings])
            except SQLAlchemyError as error:
                self._warn(f"note of {len(rings)} messages", error)

    def _push_to_redis(self, rings: Sequence[Ring]) -> None:
        pipe = self.broker.pipeline(transaction=False)
        for ring in rings:
            pipe.lpush(*self.foundry.cast(ring))
        for ring, length in zip(rings, pipe.execute(), strict=True):
            if length >= MOST_DOORBELLS:
                self._full.add(ring.queue)

    def _push_by_kombu(self, rings: Sequence[Ring]) -> None:
        with self.celery.producer_or_acquire() as producer:
            for ring in rings:
                producer.publish(**message(self.celery, ring))

    def _look(self, queue: str) -> Waiting:
        pipe = self.broker.pipeline(transaction=False)
        for key in self.foundry.lists(queue):
            pipe.llen(key)
            pipe.lindex(key, -1)
        replies = pipe.execute()
        count = sum(replies[::2])
        if count < MOST_DOORBELLS // 2:
            self._full.discard(queue)
        return Waiting(count, next((job_of(text) for text in replies[1::2] if text), None))

    def _warn(self, what: str, error: Exception) -> None:
        # Once in a while: a broker that is away would else fill the log.
        if time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + 10
            logger.warning("The broker did not take %s: %s", what, type(error).__name__)


def _mark(session: Session, ids: Sequence[str]) -> None:
    change = {"published_at": db.now(), "rings": Job.rings + 1}
    session.execute(update(Job).where(Job.id.in_(sorted(ids))).values(change))
