"""The feed of all jobs: each change of state from now on, for whoever watches the whole."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from quart_app import events, lists
from quart_app.events import Frame
from quart_app.lists import Filters, Place
from quart_app.models import Event, Job, JobState
from quart_app.web.follower import Read
from quart_app.web.reader import Reader

_MOST = 1_000  # new, and as many running jobs that a look takes in
_BATCH = 200


@dataclass(frozen=True)
class Known:
    """How far the rows have been looked at: the newest job, and the last seq of each live one."""

    newest: Place | None = None
    seqs: dict[str, int] = field(default_factory=dict)


class Feed:
    """Those who follow all jobs; without announcements the new and the running ones, by rows."""

    def __init__(self, read: Read) -> None:
        self.readers: set[Reader] = set()
        self._read = read
        self._known: Known | None = None
        self._looking = asyncio.Lock()

    def hear(self, frame: Frame) -> None:
        for reader in tuple(self.readers):
            if not reader.gets(frame):
                reader.say(frame)

    def trust(self) -> None:
        """Announcements come again: the rows need not be looked at."""
        self._known = None

    async def begin(self) -> None:
        """From here on a look tells all that happens."""
        async with self._looking:
            self._known = self._known or await self._read(_now)

    async def look(self) -> None:
        """Tells what has happened since the last look; the first only finds where things stand."""
        if not self.readers:
            self._known = None
        elif self._known is None:
            await self.begin()
        else:
            async with self._looking:
                frames, self._known = await self._read(_since, self._known)
            for frame in frames:
                self.hear(frame)


def _now(session: Session) -> Known:
    newest, _ = lists.places(session, Filters(), 1)
    running = _seqs(session, [Job.state == JobState.RUNNING])
    return Known(newest[0] if newest else None, running)


def _since(session: Session, known: Known) -> tuple[list[Frame], Known]:
    """The changes of state, in order for each job, and what is known by now."""
    fresh, newest_job = _fresh(session, known.newest)
    running = _seqs(session, [Job.state == JobState.RUNNING])
    then = dict.fromkeys(fresh, 0) | known.seqs
    now = _seqs_of(session, known.seqs) | running | fresh
    frames = _states(session, {job: then.get(job, 0) for job in now if then.get(job) != now[job]})
    ended = {frame["job"] for frame in frames if events.is_last(frame)}
    # Of one that was found running, what came before is no news.
    old = now.keys() - then.keys()
    newest = {frame["job"]: frame for frame in frames}
    frames = [frame for frame in frames if frame["job"] not in old or frame is newest[frame["job"]]]
    seqs = {job: seq for job, seq in now.items() if job not in ended}
    return frames, Known(newest_job, seqs)


def _fresh(session: Session, newest: Place | None) -> tuple[dict[str, int], Place | None]:
    """Those that came after the newest one known, and the newest of them."""
    found = select(Job.id, Job.last_seq, Job.accepted_at)
    if newest:
        at, job_id = newest
        later = or_(Job.accepted_at > at, Job.id > job_id)
        found = found.where(Job.accepted_at >= at, later)
    rows = session.execute(found.order_by(Job.accepted_at, Job.id).limit(_MOST)).all()
    seqs = {row.id: row.last_seq for row in rows}
    return seqs, Place(rows[-1].accepted_at, rows[-1].id) if rows else newest


def _seqs(session: Session, wanted: list[ColumnElement[bool]]) -> dict[str, int]:
    found = select(Job.id, Job.last_seq).where(*wanted).order_by(Job.id).limit(_MOST)
    return {row.id: row.last_seq for row in session.execute(found)}


def _seqs_of(session: Session, job_ids: Iterable[str]) -> dict[str, int]:
    ids = sorted(job_ids)[-2 * _MOST :]
    parts = (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
    return {job: seq for part in parts for job, seq in _seqs(session, [Job.id.in_(part)]).items()}


def _states(session: Session, after: Mapping[str, int]) -> list[Frame]:
    """The changes of state of each job after its seq."""
    frames: list[Frame] = []
    pairs = list(after.items())
    for start in range(0, len(pairs), _BATCH):
        part = pairs[start : start + _BATCH]
        wanted = or_(*(and_(Event.job_id == job, Event.seq > seq) for job, seq in part))
        found = select(Event).where(wanted, Event.type == "state")
        rows = session.scalars(found.order_by(Event.job_id, Event.seq))
        frames += [events.frame(row) for row in rows]
    return frames
