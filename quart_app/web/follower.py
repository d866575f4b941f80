"""One reader of one job: rows are the truth, and what is announced saves most looks at them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.orm import Session

from quart_app import events, jobs
from quart_app.db import Database
from quart_app.events import Frame

_BATCH = 100  # of rows: what a reader that has stopped reading makes us hold
#: Seconds after which a row knows at least what was announced: no announcement is trusted longer.
_TRUSTED = 3.0
_PROGRESS = ("current", "total", "message")


class Leave(Exception):
    """This reader has to go: a WebSocket's close code, and the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Follower:
    """Its cursor, and what has been announced since; `token_id` is whose eyes it reads for."""

    def __init__(self, database: Database, job_id: str, after: int, token_id: str) -> None:
        self.job_id, self.cursor, self.token_id = job_id, after, token_id
        self._database = database
        self._stale = True
        self._leave: Leave | None = None
        self._woken = asyncio.Event()
        self._fresh: list[Frame] = []
        self._progress: dict[str, Any] | None = None
        self._heard_at = 0.0
        self._shown: dict[str, Any] | None = None

    async def frames(self, silence: float | None = None) -> AsyncIterator[Frame]:
        """Every stored frame after the cursor, once and in order, and the newest progress.

        An empty frame stands for `silence` seconds without any. Ends after the terminal one;
        raises Leave when this reader has to go.
        """
        final = False
        while not final:
            self._woken.clear()
            if self._leave:
                raise self._leave
            batch, final = await self._stored() if self._stale else (self._announced(), False)
            for frame in batch:
                yield frame
            if not (self._stale or final or await self._news_within(silence)):
                yield {}

    def hear(self, frame: Frame) -> None:
        """Takes an announcement; what does not follow on directly is looked up instead."""
        if frame["type"] == "progress":
            self._progress = {name: frame[name] for name in _PROGRESS}
            self._heard_at = asyncio.get_running_loop().time()
        elif events.is_last(frame) or len(self._fresh) >= _BATCH:
            self._stale = True
        elif frame["seq"] > self.cursor:
            self._fresh.append(frame)
        self._woken.set()

    def look(self) -> None:
        self._stale = True
        self._woken.set()

    def send_away(self, leave: Leave) -> None:
        self._leave = leave
        self._woken.set()

    async def _stored(self) -> tuple[list[Frame], bool]:
        """The next rows, and whether they are the last there will be."""
        self._stale, self._fresh = False, []
        batch, progress, ended = await self._database.read(_news, self.job_id, self.cursor)
        if batch:
            self.cursor = batch[-1]["seq"]
        self._stale = len(batch) == _BATCH
        if ended and not self._stale:
            # The row holds the very last progress; it goes before the terminal frame.
            return [*batch[:-1], *self._snapshot(progress), *batch[-1:]], True
        return [*batch, *self._snapshot(self._newest(progress))], False

    def _announced(self) -> list[Frame]:
        batch = []
        for frame in self._fresh:
            if frame["seq"] == self.cursor + 1:
                self.cursor += 1
                batch.append(frame)
            elif frame["seq"] > self.cursor:
                self._stale = True
                break
        self._fresh = []
        return [*batch, *self._snapshot(self._newest(None))]

    def _newest(self, stored: dict[str, Any] | None) -> dict[str, Any] | None:
        age = asyncio.get_running_loop().time() - self._heard_at
        return self._progress if self._progress and age < _TRUSTED else stored

    def _snapshot(self, progress: dict[str, Any] | None) -> list[Frame]:
        if progress is None or progress == self._shown:
            return []
        self._shown = progress
        return [events.progress_frame(self.job_id, progress)]

    async def _news_within(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        except TimeoutError:
            return False


def _news(
    session: Session, job_id: str, after: int
) -> tuple[list[Frame], dict[str, Any] | None, bool]:
    """The stored frames after a seq, the newest stored progress, and whether the job has ended."""
    job = jobs.get(session, job_id)
    # What was written since the job was read is for the next look: its end may be among it.
    known = [
        frame
        for frame in events.since(session, job_id, after, _BATCH)
        if frame["seq"] <= job.last_seq
    ]
    return known, job.progress, job.state in events.TERMINAL
