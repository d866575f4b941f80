"""The way to the broker: rings a job's doorbell after its commit, and makes nobody wait for it.

One thread per process pushes what commits leave behind, in batches and under a deadline, for every
broker alike. A doorbell may be lost, repeated or forged without harm, since the row decides; what
could not be delivered is rung again by the relay.
"""

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cached_property
from typing import Any

from quart import Quart, current_app
from redis.exceptions import ResponseError
from sqlalchemy import Row, update
from sqlalchemy.orm import Session

from quart_app import brokers, commits, db
from quart_app.brokers import Waiting
from quart_app.doorbell import Foundry, Ring
from quart_app.events import Frame
from quart_app.models import Job, JobState
from quart_app.seldom import Seldom
from quart_app.serving import while_serving

#: The frames of a job are announced on this channel, followed by the job's id.
CHANNEL = "quartermaster:job:"
#: The changes of state of all jobs, without their results.
FEED = "quartermaster:states"
#: What a doorbell has to say of its job.
NEEDED = (Job.id, Job.task, Job.queue, Job.priority)
#: Doorbells kept for one queue; the rest of a backlog waits in the database for the relay.
MOST_DOORBELLS = 1_000
_MOST_PENDING = 20_000
_BATCH = 500
#: Seconds after which a process without a relay finds out whether a full list is still full.
_FULL_FOR = 2.0
#: Seconds between two batches of frames alone: what comes meanwhile goes together.
_PAUSE = 0.01
#: Seconds for which a Redis that took no frames is left in peace: the rows have them.
_ANNOUNCE_AGAIN = 5.0
_NOT_TAKEN = "The broker did not take %s: %s; nothing that was accepted is lost."

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> "Publisher":
    publisher = Publisher(app)
    app.extensions["publisher"] = publisher
    app.extensions["db"].after_commit.append(publisher.committed)

    @while_serving(app)
    async def serving() -> AsyncGenerator[None, None]:
        yield
        await asyncio.to_thread(publisher.close)

    return publisher


def get() -> "Publisher":
    """The publisher of the current application."""
    publisher: Publisher = current_app.extensions["publisher"]
    return publisher


def ring(session: Session, job: Job | Row[Any]) -> None:
    """Has the job's doorbell rung once the transaction has been committed."""
    if get().has_room(job.queue):
        commits.leave(session, "rings", ring_for(job))


def ring_for(job: Job | Row[*tuple[Any, ...]]) -> Ring:
    return Ring(job.id, job.task, job.queue, job.priority)


class Publisher:
    """Pushes doorbells to the broker and announces frames on Redis."""

    def __init__(self, app: Quart) -> None:
        self.database: db.Database = app.extensions["db"]
        self.celery = app.extensions["celery"]
        self.timeout: float = app.config["PUBLISH_TIMEOUT"]
        self._redis_url: str = app.config["REDIS_URL"]
        self._broker_url: str = app.config["CELERY_BROKER_URL"]
        #: Whether it is the Redis that `up` starts.
        self.is_embedded: bool = app.config["EMBEDDED_BROKER"]
        self.most_doorbells = MOST_DOORBELLS
        self.most_pending = _MOST_PENDING
        #: How many were not taken, of each kind.
        self.failures = {"messages": 0, "frames": 0}
        #: For the relay: whether the broker did not answer, and when by the database it was back.
        self.was_away = False
        self.back_at: datetime | None = None
        self._full_until: dict[str, float] = {}
        self._busy = False
        self._warnings = Seldom()
        self.forget_connections()

    def has_room(self, queue: str) -> bool:
        """False while the queue's list is full: its jobs wait in the database for the relay."""
        return time.monotonic() >= self._full_until.get(queue, 0.0)

    def committed(self, session: Session) -> None:
        """After a commit: takes what it left to be rung and announced, and returns at once."""
        left = [*commits.taken(session, "rings"), *commits.taken(session, "frames")]
        if not left:
            return
        with self._lock:
            self._pending.extend(left[: self.most_pending - len(self._pending)])
            if not self._busy:
                self._thread.submit(self._drain)
            self._busy = True

    def push(self, rings: Sequence[Ring]) -> Sequence[Ring] | None:
        """Rings now, in the caller's thread; None when the broker did not take them in time.

        What was rung is returned: what no message can be made of waits, and holds up no other.
        """
        cast = [(ring, made) for ring in rings if (made := self._cast(ring))]
        try:
            for queue, length in self.broker.push(cast).items() if cast else ():
                self._note_length(queue, length)
        except Exception as error:  # whatever a broker's library raises: the relay tries again
            self.failures["messages"] += len(cast)
            self._warn(f"{len(cast)} messages", error)
            return None
        return [ring for ring, _ in cast]

    @property
    def is_heard(self) -> bool:
        """False for a while after Redis took no frames: the rows carry on alone."""
        return time.monotonic() >= self._silent_until

    def announce(self, frames: Sequence[Frame]) -> None:
        """Sends the frames to whoever follows their jobs, if Redis takes them."""
        try:
            pipe = self.live.pipeline(transaction=False)
            for frame in frames:
                text = json.dumps(frame, ensure_ascii=False)
                pipe.publish(CHANNEL + frame["job"], text)
                if frame["type"] == "state":
                    pipe.publish(FEED, _brief(frame) if "result" in frame else text)
            pipe.execute()
        except Exception as error:
            self._silent_until = time.monotonic() + _ANNOUNCE_AGAIN
            self.failures["frames"] += len(frames)
            self._warn(f"{len(frames)} frames", error)

    def waiting(self, queues: Sequence[str]) -> dict[str, Waiting]:
        """What waits per queue; raises whatever the broker's library raises when it is away."""
        found = {}
        for queue in queues:
            try:
                found[queue] = self.broker.waiting(queue)
            except ResponseError as error:  # something else lies under its name: the rest go on
                self._warn(f"queue {queue}", error)
            else:
                self._note_length(queue, found[queue].count)
        return found

    def ping(self) -> None:
        """Raises whatever the broker's library raises when it does not answer in time."""
        self.broker.ping()

    def forget_connections(self) -> None:
        """In a forked child: the parent's thread and sockets are not its own."""
        self.__dict__.pop("_thread", None)
        self.foundry = Foundry(self.celery)  # what it has made names the parent as its origin
        self.broker = brokers.broker(self.foundry, self._broker_url, self.timeout)
        self.live = brokers.connect(self._redis_url, self.timeout)
        self._lock = threading.Lock()
        self._pending: deque[Ring | Frame] = deque()
        self._busy = False
        self._silent_until = 0.0

    def close(self) -> None:
        """Sends what is pending, or finds that it cannot; two deadlines at most."""
        if "_thread" in self.__dict__:
            self.__dict__.pop("_thread").shutdown()
        self.broker.close()
        self.live.close()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "publisher")

    def _drain(self) -> None:
        while batch := self._take():
            rings = [item for item in batch if isinstance(item, Ring) and self.has_room(item.queue)]
            frames = [item for item in batch if not isinstance(item, Ring)]
            rung = self.push(rings)
            if frames and self.is_heard:
                self.announce(frames)
            if rung is None:
                self._leave_to_the_relay()
            elif rung:
                self._note(rung)
            else:
                time.sleep(_PAUSE)

    def _cast(self, ring: Ring) -> Any:
        try:
            return self.broker.cast(ring)
        except Exception as error:  # whatever a route raises: an unknown queue, say
            self.failures["messages"] += 1
            self._warn(f"job {ring.job_id}", error, "No message can be made of %s: %s")
            return None

    def _leave_to_the_relay(self) -> None:
        """What is pending would only wait for another deadline."""
        with self._lock:
            self._pending = deque(item for item in self._pending if not isinstance(item, Ring))

    def _take(self) -> list[Ring | Frame]:
        with self._lock:
            size = min(_BATCH, len(self._pending))
            self._busy = size > 0
            return [self._pending.popleft() for _ in range(size)]

    def _note(self, rings: Sequence[Ring]) -> None:
        try:
            with self.database.session() as session:
                _mark(session, [ring.job_id for ring in rings])
        except Exception as error:  # rung again by the relay, and dropped as a duplicate
            self._warnings.warn(logger, "What was rung could not be noted", error)

    def _note_length(self, queue: str, length: int) -> None:
        """A list that was full has room again when half of it is gone."""
        if length >= self.most_doorbells:
            self._full_until[queue] = time.monotonic() + _FULL_FOR
        elif length < self.most_doorbells // 2:
            self._full_until.pop(queue, None)

    def _warn(self, what: str, error: Exception, text: str = _NOT_TAKEN) -> None:
        if self._warnings.passes(text):
            logger.warning(text, what, type(error).__name__)


def _brief(frame: Frame) -> str:
    known = {name: value for name, value in frame.items() if name != "result"}
    return json.dumps(known, ensure_ascii=False)


def _mark(session: Session, ids: Sequence[str]) -> None:
    # What a worker was quicker to claim has its time from that.
    unclaimed = (Job.id.in_(sorted(ids)), Job.state == JobState.QUEUED)
    change = {"published_at": db.now(), "rings": Job.rings + 1}
    session.execute(update(Job).where(*unclaimed).values(change))
