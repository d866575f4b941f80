"""Lists of jobs, newest first: each page is found by an index, and what none knows within a bound.

One filter is one index, read in its order. Of several, and for a text, jobs are looked through in
strides, by the filter that leaves the fewest of them, until the page is full or the time is up: the
next page goes on from there.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, Text, func, or_, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session

from quart_app.models import Job, JobState

#: Jobs that are looked through at once; as few as these are always searched whole.
STRIDE = 1_000
#: Seconds after which a search that is not done goes on with the next page.
PATIENCE = 0.015
#: Characters of arguments, results and errors on one page, a first job that has more apart.
MOST_ON_A_PAGE = 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """Where a job stands in every list; as a cursor, what comes after it is asked for."""

    accepted_at: datetime
    id: str

    def __str__(self) -> str:
        return f"{(self.accepted_at - _EPOCH) // timedelta(microseconds=1)}.{self.id}"

    @classmethod
    def read(cls, cursor: str) -> "Place":
        microseconds, _, job_id = cursor.partition(".")
        return cls(_EPOCH + timedelta(microseconds=int(microseconds)), job_id)


_END = Place(datetime.min.replace(tzinfo=UTC), "")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What the jobs of a list have in common; `text` is in their arguments or their error."""

    state: JobState | None = None
    task: str | None = None
    queue: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def exact(self) -> Mapping[InstrumentedAttribute[Any], str]:
        """Those that have an index each."""
        given = {Job.state: self.state, Job.task: self.task, Job.queue: self.queue}
        return {column: value for column, value in given.items() if value is not None}

    @property
    def times(self) -> list[ColumnElement[bool]]:
        since = [Job.accepted_at >= self.since] if self.since else []
        until = [Job.accepted_at <= self.until] if self.until else []
        return [*since, *until]


@dataclass(frozen=True, slots=True)
class Page:
    """`rest` is where the next page begins, None when there is nothing more."""

    jobs: Sequence[Job]
    rest: Place | None


def page(
    session: Session, filters: Filters, *, limit: int = 50, after: Place | None = None
) -> Page:
    """May hold fewer jobs than `limit` and leave a rest: when it takes long, or they are big."""
    found, rest = places(session, filters, limit, after)
    kept = found[: _how_many_fit(session, found)]
    loaded = {job.id: job for job in session.scalars(select(Job).where(_among(kept)))}
    jobs = [loaded[place.id] for place in kept if place.id in loaded]
    return Page(jobs, kept[-1] if len(kept) < len(found) else rest)


def places(
    session: Session,
    filters: Filters,
    limit: int,
    after: Place | None = None,
    *also: ColumnElement[bool],
) -> tuple[list[Place], Place | None]:
    """As `page`, the places of the jobs alone; `also` holds for each of them."""
    deadline = time.monotonic() + PATIENCE
    found: list[Place] = []
    while True:
        by, reach = _stride(session, filters, after)
        wanted = [*_matches(filters, by), *_between(after, reach), *also]
        found += _look(session, wanted, limit + 1 - len(found))
        if len(found) > limit:
            return found[:limit], found[limit - 1]
        if reach is None or time.monotonic() > deadline:
            return found, reach
        after = reach


def _stride(
    session: Session, filters: Filters, after: Place | None
) -> tuple[InstrumentedAttribute[Any] | None, Place | None]:
    """The filter to go by, and the last place to look at now; None where all can be looked at."""
    if len(filters.exact) <= 1 and not filters.text:
        return next(iter(filters.exact), None), None
    times = [*filters.times, *_between(after, None)]
    reaches: list[tuple[Place | None, Any]] = [
        (_reach(session, [column == value, *times]), column)
        for column, value in filters.exact.items()
    ] or [(_reach(session, times), None)]
    reach, by = min(reaches, key=lambda found: found[0] or _END)
    return by, reach


def _reach(session: Session, wanted: Sequence[ColumnElement[bool]]) -> Place | None:
    """Where a stride through these ends, if there are as many."""
    last = _listed().where(*wanted).offset(STRIDE - 1).limit(1)
    row = session.execute(last).first()
    return Place(*row) if row else None


def _look(session: Session, wanted: Sequence[ColumnElement[bool]], most: int) -> list[Place]:
    return [Place(*row) for row in session.execute(_listed().where(*wanted).limit(most))]


def _listed() -> Any:
    return select(Job.accepted_at, Job.id).order_by(Job.accepted_at.desc(), Job.id.desc())


def _matches(filters: Filters, by: InstrumentedAttribute[Any] | None) -> list[ColumnElement[bool]]:
    # As expressions, so that no index but that of `by` is thought of.
    others = [
        type_coerce(column, String).concat("") == value
        for column, value in filters.exact.items()
        if column is not by
    ]
    exact = [] if by is None else [by == filters.exact[by]]
    text = [_says(filters.text)] if filters.text else []
    return [*exact, *filters.times, *others, *text]


def _between(after: Place | None, reach: Place | None) -> list[ColumnElement[bool]]:
    """Written so that every database sees the range."""
    at, bounds = Job.accepted_at, []
    if after:
        bounds += [at <= after.accepted_at, or_(at < after.accepted_at, Job.id < after.id)]
    if reach:
        bounds += [at >= reach.accepted_at, or_(at > reach.accepted_at, Job.id >= reach.id)]
    return bounds


def _says(text: str) -> ColumnElement[bool]:
    """Whether the arguments or the error contain the text, in whatever case."""
    as_json = json.dumps(text, ensure_ascii=False)[1:-1]
    sought = {Job.args: as_json, Job.kwargs: as_json, Job.error: text}
    return or_(
        *(
            func.lower(type_coerce(part, Text)).contains(words.lower(), autoescape=True)
            for part, words in sought.items()
        )
    )


def _how_many_fit(session: Session, found: Sequence[Place]) -> int:
    """So many of the first that they can be loaded and shown without holding others up."""
    parts = (Job.args, Job.kwargs, Job.result, Job.error)
    lengths = select(Job.id, *(func.length(part) for part in parts)).where(_among(found))
    sizes = {job_id: sum(map(int, filter(None, row))) for job_id, *row in session.execute(lengths)}
    room = MOST_ON_A_PAGE
    for number, place in enumerate(found):
        room -= sizes.get(place.id, 0)
        if room < 0:
            return max(1, number)
    return len(found)


def _among(found: Sequence[Place]) -> ColumnElement[bool]:
    return Job.id.in_([place.id for place in found])
