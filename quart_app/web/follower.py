"""One job as one reader follows it: rows are the truth, announcements save most looks at them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.orm import Session

from quart_app import events, jobs
from quart_app.events import Frame

#: Reads as `db.read` does: `await read(verb, *args)`.
Read = Callable[..., Awaitable[Any]]

TOO_MANY = 1013
#: Seconds after which a row knows at least what was announced: no announcement is trusted longer.
_TRUSTED = 3.0
_PROGRESS = ("current", "total", "message")


class Leave(Exception):
    """This reader has to go: a WebSocket's close code, and the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Follower:
    """Its cursor, and what has been announced since; `notify` is called when there may be news."""

    def __init__(self, read: Read, job_id: str, after: int, notify: Callable[[str], None]) -> None:
        self.job_id, self.cursor = job_id, after
        #: True while the rows have to be looked at.
        self.is_stale = True
        self._read, self._notify = read, notify
        self._fresh: list[Frame] = []
        self._progress: dict[str, Any] | None = None
        self._heard_at = 0.0
        self._shown: dict[str, Any] | None = None

    def hear(self, frame: Frame) -> None:
        """Takes an announcement; what does not follow on directly is looked up instead."""
        if frame["type"] == "progress":
            self._progress = {name: frame[name] for name in _PROGRESS}
            self._heard_at = asyncio.get_running_loop().time()
        elif events.is_last(frame) or len(self._fresh) >= events.PAGE:
            self.is_stale, self._fresh = True, []
        elif frame["seq"] > self.cursor:
            self._fresh.append(frame)
        self._notify(self.job_id)

    def compare(self, last_seq: int, progress: dict[str, Any] | None) -> None:
        """Has the rows looked at when they know more than has been sent."""
        is_newer = progress is not None and progress != self._shown and not self._is_told
        if last_seq > self.cursor or is_newer:
            self.is_stale = True
            self._notify(self.job_id)

    async def news(self) -> tuple[list[Frame], bool]:
        """The next frames, and whether they are the last: each stored one once and in order.

        Those that are stored come with the newest progress. Raises NotFound.
        """
        return await self._stored() if self.is_stale else (self._announced(), False)

    async def _stored(self) -> tuple[list[Frame], bool]:
        self.is_stale, self._fresh = False, []
        batch, progress, ended = await self._read(_news, self.job_id, self.cursor)
        if batch:
            self.cursor = batch[-1]["seq"]
        if len(batch) == events.PAGE:
            self.is_stale = True
        elif ended:
            # The row holds the very last progress; it goes before the terminal frame, and whoever
            # has had that is told nothing more.
            last = self._snapshot(progress) if batch else []
            return [*batch[:-1], *last, *batch[-1:]], True
        return [*batch, *self._snapshot(self._newest(progress))], False

    def _announced(self) -> list[Frame]:
        batch = []
        for frame in self._fresh:
            if frame["seq"] == self.cursor + 1:
                self.cursor += 1
                batch.append(frame)
            elif frame["seq"] > self.cursor:
                self.is_stale = True
                break
        self._fresh = []
        return [*batch, *self._snapshot(self._newest(None))]

    def _newest(self, stored: dict[str, Any] | None) -> dict[str, Any] | None:
        return self._progress if self._is_told else stored

    @property
    def _is_told(self) -> bool:
        """Whether a progress was announced that the row may not know yet."""
        age = asyncio.get_running_loop().time() - self._heard_at
        return self._progress is not None and age < _TRUSTED

    def _snapshot(self, progress: dict[str, Any] | None) -> list[Frame]:
        if progress is None or progress == self._shown:
            return []
        self._shown = progress
        return [events.progress_frame(self.job_id, progress)]


def _news(
    session: Session, job_id: str, after: int
) -> tuple[list[Frame], dict[str, Any] | None, bool]:
    """The stored frames after a seq, the newest stored progress, and whether the job has ended."""
    job = jobs.get(session, job_id)
    # What was written since the job was read is for the next look: its end may be among it.
    known = [
        frame
        for frame in events.since(session, job_id, after, events.PAGE)
        if frame["seq"] <= job.last_seq
    ]
    return known, job.progress, job.state in events.TERMINAL
