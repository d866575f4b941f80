"""Live progress: rows are the truth, and what Redis announces says when to look, or what is new."""

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import redis.asyncio
from quart import Blueprint, Quart, Response, current_app, make_response, websocket
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.orm import Session

from quart_app import db, events, jobs
from quart_app.errors import NotFound
from quart_app.events import Frame
from quart_app.models import Job, JobState
from quart_app.publisher import CHANNEL
from quart_app.web import auth

blueprint = Blueprint("live", __name__)

_BATCH = 500
_SEND_SECONDS = 10
_LOOK_EVERY = 1.0  # with Redis away
_LOOK_ANYWAY = 5.0  # an announcement may be lost
_RESTART, _TOO_SLOW, _UNEXPECTED = 1012, 1013, 1008

logger = logging.getLogger(__name__)


class Draining(Exception):
    """This process is about to stop: follow again elsewhere, from your cursor."""


def init_app(app: Quart) -> None:
    hub = Hub(app)
    app.extensions["live"] = hub
    app.before_serving(hub.start)
    app.after_serving(hub.stop)


def _news(
    session: Session, job_id: str, after: int
) -> tuple[list[Frame], dict[str, Any] | None, bool]:
    """The stored frames after a seq, the newest stored progress, and whether the job has ended."""
    job = jobs.get(session, job_id)
    return events.since(session, job_id, after, _BATCH), job.progress, job.state in events.TERMINAL


class Follower:
    """One reader of one job: its cursor, and what has been announced since."""

    def __init__(self, job_id: str, after: int) -> None:
        self.job_id, self.cursor = job_id, after
        self.stale = True
        self.ended = False
        self.woken = asyncio.Event()
        self._fresh: list[Frame] = []
        self._progress: dict[str, Any] | None = None
        self._shown: dict[str, Any] | None = None

    def hear(self, frame: Frame) -> None:
        """Takes an announcement; what does not follow on directly is looked up instead."""
        if frame["type"] == "progress":
            self._progress = {name: frame[name] for name in ("current", "total", "message")}
        elif events.is_last(frame) or len(self._fresh) >= _BATCH:
            self.stale = True
        elif frame["seq"] > self.cursor:
            self._fresh.append(frame)
        self.woken.set()

    def look(self) -> None:
        self.stale = True
        self.woken.set()

    def end(self) -> None:
        self.ended = True
        self.woken.set()

    async def frames(self) -> AsyncIterator[Frame]:
        """Every stored frame after the cursor, once and in order, and the newest progress.

        Ends after the terminal one; raises Draining when this process is to stop.
        """
        final = False
        while not final:
            self.woken.clear()
            if self.ended:
                raise Draining
            batch, final = await self._stored() if self.stale else (self._announced(), False)
            for frame in batch:
                yield frame
            if not (self.stale or final):
                await self.woken.wait()

    async def _stored(self) -> tuple[list[Frame], bool]:
        """The next rows, and whether they are the last there will be."""
        self.stale, self._fresh = False, []
        batch, progress, ended = await db.read(_news, self.job_id, self.cursor)
        if batch:
            self.cursor = batch[-1]["seq"]
        self.stale = len(batch) == _BATCH
        if ended and not self.stale:
            # The row holds the very last progress; it goes before the terminal frame.
            return [*batch[:-1], *self._snapshot(progress), *batch[-1:]], True
        return [*batch, *self._snapshot(self._progress or progress)], False

    def _announced(self) -> list[Frame]:
        batch = []
        for frame in self._fresh:
            if frame["seq"] == self.cursor + 1:
                self.cursor += 1
                batch.append(frame)
            elif frame["seq"] > self.cursor:
                self.stale = True
                break
        self._fresh = []
        return [*batch, *self._snapshot(self._progress)]

    def _snapshot(self, progress: dict[str, Any] | None) -> list[Frame]:
        if progress is None or progress == self._shown:
            return []
        self._shown = progress
        return [events.progress_frame(self.job_id, progress)]


class Hub:
    """One Redis subscription for all followers of this process, however many there are."""

    def __init__(self, app: Quart) -> None:
        self._app = app
        self._followers: dict[str, set[Follower]] = defaultdict(set)
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def follow(self, job_id: str, after: int) -> AsyncIterator[Follower]:
        follower = Follower(job_id, after)
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

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look())]

    async def stop(self) -> None:
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """Has every follower go elsewhere."""
        for follower in self._everyone():
            follower.end()

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
            self._pubsub = None
            await asyncio.sleep(_LOOK_EVERY)

    async def _hear(self) -> None:
        url = self._app.config["REDIS_URL"]
        client = redis.asyncio.from_url(url, socket_connect_timeout=2, health_check_interval=5)
        async with client, client.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL, *(CHANNEL + job_id for job_id in self._followers))
            self._pubsub = pubsub
            while True:
                message = await pubsub.get_message(timeout=5)
                if message is not None:
                    self._dispatch(message)

    def _dispatch(self, message: dict[str, Any]) -> None:
        job_id = message["channel"].decode().removeprefix(CHANNEL)
        those = tuple(self._followers.get(job_id, ()))
        if message["type"] == "subscribe":
            # From here on nothing is missed; what came before is in the rows.
            for follower in those:
                follower.look()
        elif message["type"] == "message" and those:
            frame = json.loads(message["data"])
            for follower in those:
                follower.hear(frame)

    async def _look(self) -> None:
        """Looks at the rows of all followed jobs, often while Redis is away."""
        while True:
            await asyncio.sleep(_LOOK_EVERY if self._pubsub is None else _LOOK_ANYWAY)
            try:
                await self._look_once()
            except Exception as error:
                logger.warning("Followed jobs could not be read: %s", type(error).__name__)

    async def _look_once(self) -> None:
        async with self._app.app_context():
            followed = sorted(self._followers)
            for start in range(0, len(followed), _BATCH):
                for row in await db.read(_states, followed[start : start + _BATCH]):
                    for follower in tuple(self._followers.get(row.id, ())):
                        if row.last_seq > follower.cursor or row.state is JobState.RUNNING:
                            follower.look()


def _states(session: Session, ids: list[str]) -> Any:
    return session.execute(select(Job.id, Job.state, Job.last_seq).where(Job.id.in_(ids))).all()


@blueprint.websocket("/ws/jobs/<job_id>")
async def job_socket(job_id: str) -> None:
    """Replays a job's events after `?after=`, then follows it to its end."""
    await websocket.accept()
    if refusal := await _refusal(job_id):
        await websocket.close(*refusal)
        return
    after = websocket.args.get("after", "0")
    await _serve(_send_frames(job_id, int(after) if after.isdecimal() else 0))


async def event_stream(job_id: str, after: int) -> Response:
    """The same as server-sent events; `id:` is the seq."""

    async def stream() -> AsyncIterator[bytes]:
        async with _hub().follow(job_id, after) as follower:
            try:
                async for frame in follower.frames():
                    yield _sse(frame)
            except Draining:
                yield b"retry: 1000\n\n"

    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    response: Response = await make_response(stream(), 200, headers)  # type: ignore[assignment]
    response.timeout = None
    return response


def _hub() -> Hub:
    hub: Hub = current_app.extensions["live"]
    return hub


def _sse(frame: Frame) -> bytes:
    seq = f"id: {frame['seq']}\n" if "seq" in frame else ""
    return f"{seq}data: {json.dumps(frame, ensure_ascii=False)}\n\n".encode()


async def _refusal(job_id: str) -> tuple[int, str] | None:
    """The close code and reason for whoever may not follow this job."""
    if not auth.is_known_host(websocket.host):
        return 4403, "unknown host"
    if not auth.is_same_origin(websocket.headers, websocket.host):
        return 4403, "this origin may not connect"
    if await auth.socket_user() is None:
        return 4401, "no or bad token"
    try:
        await db.read(jobs.get, job_id)
    except NotFound as problem:
        return 4404, str(problem)
    return None


async def _serve(sending: Awaitable[tuple[int, str]]) -> None:
    """Sends until done, reading all the while: a client that talks would else fill our memory."""
    tasks = [asyncio.ensure_future(sending), asyncio.create_task(_hear_nothing())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await websocket.close(*done.pop().result())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_frames(job_id: str, after: int) -> tuple[int, str]:
    async with _hub().follow(job_id, after) as follower:
        try:
            async for frame in follower.frames():
                text = json.dumps(frame, ensure_ascii=False)
                await asyncio.wait_for(websocket.send(text), _SEND_SECONDS)
        except Draining:
            return _RESTART, "restarting: reconnect with after"
        except TimeoutError:
            return _TOO_SLOW, "too slow"
    return 1000, "the job has ended"


async def _hear_nothing() -> tuple[int, str]:
    while not await websocket.receive():
        pass  # an empty frame does no harm
    return _UNEXPECTED, "nothing is expected on this socket"
