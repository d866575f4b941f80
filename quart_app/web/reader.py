"""One client that follows jobs, by a socket or a stream: what it follows, and what it is sent."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from quart_app.errors import NotFound
from quart_app.events import Frame
from quart_app.web.follower import TOO_MANY, Follower, Leave, Read

_MOST_SAID = 2_000
_MOST_HAD = 1_000
_UNKNOWN = 4404

#: Told of the followers that begin, or that end.
Told = Callable[[Collection[Follower]], Awaitable[None]]


class Reader:
    """Its jobs take turns, so that what it makes us hold does not grow with their number.

    One that is not `lasting` follows a job to its end; `token_id` is whose eyes it reads for.
    """

    def __init__(self, token_id: str, read: Read, begin: Told, end: Told, lasting: bool) -> None:
        self.token_id = token_id
        self.followers: dict[str, Follower] = {}
        #: Why it has to go, as soon as it has.
        self.leaving: asyncio.Future[Leave] = asyncio.get_running_loop().create_future()
        self._read, self._begin, self._end, self._lasting = read, begin, end, lasting
        self._ready: dict[str, None] = {}
        self._said: deque[Frame] = deque()
        #: The last seq of jobs that are followed no more.
        self._had: dict[str, int] = {}
        self._woken = asyncio.Event()

    async def follow(self, cursors: Mapping[str, int]) -> None:
        """Replays each job after its cursor, then follows it; one that it follows goes on."""
        fresh = [
            Follower(self._read, job_id, after, self._note)
            for job_id, after in cursors.items()
            if job_id not in self.followers
        ]
        self.followers |= {follower.job_id: follower for follower in fresh}
        await self._begin(fresh)
        for follower in fresh:
            self._note(follower.job_id)

    async def unfollow(self, job_ids: Iterable[str]) -> None:
        gone = [self.followers.pop(job_id) for job_id in tuple(job_ids) if job_id in self.followers]
        for follower in gone:
            self._remember(follower)
        await self._end(gone)

    def gets(self, frame: Frame) -> bool:
        """Whether a change of state comes, or has come, because its job is followed."""
        job_id = frame["job"]
        return job_id in self.followers or frame["seq"] <= self._had.get(job_id, 0)

    def say(self, frame: Frame) -> None:
        """Sends a frame that belongs to no followed job."""
        if len(self._said) >= _MOST_SAID:
            self.send_away(Leave(TOO_MANY, "too slow"))
        else:
            self._said.append(frame)
            self._woken.set()

    def send_away(self, leave: Leave) -> None:
        if not self.leaving.done():
            self.leaving.set_result(leave)
        self._woken.set()

    async def frames(self, silence: float | None = None) -> AsyncIterator[Frame]:
        """What is to be sent, as it comes; raises Leave when this reader has to go.

        An empty frame stands for `silence` seconds without any. Ends after the last frame of what
        it follows, unless it is lasting.
        """
        while not self._is_over:
            self._woken.clear()
            frames = await self._next()
            for frame in frames:
                self._stay()
                yield frame
            self._stay()
            if not (frames or self._is_over or await self._news_within(silence)):
                yield {}

    @property
    def _is_over(self) -> bool:
        return not (self._lasting or self.followers)

    def _stay(self) -> None:
        if self.leaving.done():
            raise self.leaving.result()

    async def _next(self) -> list[Frame]:
        if self._said:
            return [self._said.popleft()]
        while self._ready:
            job_id = next(iter(self._ready))
            del self._ready[job_id]
            follower = self.followers.get(job_id)
            if follower and (frames := await self._news(follower)):
                return frames
        return []

    async def _news(self, follower: Follower) -> list[Frame]:
        job_id = follower.job_id
        try:
            frames, final = await follower.news()
        except NotFound as unknown:
            if not self._lasting:
                raise Leave(_UNKNOWN, "there is no such job") from None
            frames, final = [error_frame(str(unknown), job_id)], True
            follower.cursor = 0  # nothing of it has come, whatever the client said
        if self.followers.get(job_id) is not follower:
            return []  # unfollowed meanwhile
        if final:
            await self.unfollow([job_id])
        elif follower.is_stale:
            self._note(job_id)
        return frames

    def _remember(self, gone: Follower) -> None:
        """An announcement may come later than what the rows told."""
        self._had.pop(gone.job_id, None)
        self._had[gone.job_id] = gone.cursor
        if len(self._had) > _MOST_HAD:
            del self._had[next(iter(self._had))]

    def _note(self, job_id: str) -> None:
        self._ready[job_id] = None
        self._woken.set()

    async def _news_within(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        except TimeoutError:
            return False


def error_frame(detail: str, job_id: str | None = None) -> Frame:
    frame: dict[str, Any] = {"type": "error", "detail": detail}
    return frame | ({"job": job_id} if job_id else {})
