"""Many jobs cancelled or retried by one call: in small transactions, for which nobody waits."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from quart import current_app
from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from quart_app import actors, audit, db, depths, jobs, lists, publisher
from quart_app.errors import Conflict, Invalid, NotFound
from quart_app.lists import Filters, Place
from quart_app.models import Job, JobState

#: So many jobs are changed by one call at most.
MOST = 10_000
#: Seconds after which a call that is not done leaves the rest to the next one.
PATIENCE = 5.0
_AT_ONCE = 500
_COUNTED_AT_ONCE = 10_000


@dataclass(frozen=True)
class Action:
    """What is done to jobs in one of the states, looked through in their order."""

    #: What the audit log calls it.
    name: str
    states: Sequence[JobState]
    verb: Callable[[Session, Sequence[str]], int]
    also: Sequence[ColumnElement[bool]] = ()


class Mark(NamedTuple):
    """How far a call has come; as a cursor it is where the next one goes on."""

    state: JobState
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.state}.{self.place or ''}"

    @classmethod
    def read(cls, cursor: str) -> "Mark":
        state, _, place = cursor.partition(".")
        return cls(JobState(state), Place.read(place) if place else None)


@dataclass(frozen=True)
class Tally:
    """`refused` are those whose state or key did not allow it any more when their turn came."""

    matched: int
    done: int
    refused: int
    #: Where the next call goes on; None when all have had their turn.
    rest: Mark | None


def _cancel(session: Session, job_ids: Sequence[str]) -> int:
    moved = jobs.move_many(
        session, job_ids, JobState.CANCELLED,
        from_=jobs.WAITING, said=jobs.CANCELLED, **jobs.over(),
    )  # fmt: skip
    for queue in {job.queue for job in moved}:
        depths.forget(queue)
    rest = sorted(set(job_ids) - {job.id for job in moved})
    return len(moved) + _one_by_one(session, jobs.cancel, rest)


def _retry(session: Session, job_ids: Sequence[str]) -> int:
    unkeyed = Job.unique_key.is_(None)
    moved = jobs.move_many(
        session, job_ids, JobState.QUEUED, unkeyed, from_=jobs.RETRYABLE, **jobs.again()
    )
    for job in moved:
        publisher.ring(session, job)
    rest = select(Job.id).where(Job.id.in_(job_ids), ~unkeyed).order_by(Job.id)
    return len(moved) + _one_by_one(session, jobs.retry, session.scalars(rest).all())


def _one_by_one(
    session: Session, verb: Callable[[Session, str], object], job_ids: Sequence[str]
) -> int:
    done = 0
    for job_id in job_ids:
        with suppress(Conflict, NotFound):
            verb(session, job_id)
            done += 1
    return done


#: In the order of a job's life: what moves on meanwhile is met again. Who was asked once is left.
CANCEL = Action(
    "job.cancel",
    (JobState.SCHEDULED, JobState.RETRYING, JobState.QUEUED, JobState.RUNNING),
    _cancel,
    (Job.cancel_requested.is_(False),),
)
RETRY = Action("job.retry", jobs.RETRYABLE, _retry)


def run(
    database: db.Database,
    action: Action,
    filters: Filters,
    *,
    dry_run: bool = False,
    after: Mark | None = None,
) -> Tally:
    """Does it to all that match, newest first; those that arrive meanwhile are left alone.

    Of tasks that whoever acts may not use no job matches. A dry run only counts them. Raises
    Invalid where there is no filter, or no job could match, and Unsure.
    """
    states = _states(action, filters, after)
    place = after.place if after else None
    matched, done, deadline = 0, 0, time.monotonic() + PATIENCE
    while states and time.monotonic() < deadline and (dry_run or matched < MOST):
        these = replace(filters, state=states[0])
        most = _COUNTED_AT_ONCE if dry_run else min(_AT_ONCE, MOST - matched)
        try:
            found, rest = _find(database, action, these, most, place)
            done += _do(database, action, found) if found and not dry_run else 0
        except (OperationalError, InterfaceError):
            if not matched:
                raise
            break  # what was done is done, and the rest is told
        matched, place = matched + len(found), rest
        states = states if rest else states[1:]
    refused = 0 if dry_run else matched - done
    return Tally(matched, done, refused, Mark(states[0], place) if states else None)


def _states(action: Action, filters: Filters, after: Mark | None) -> Sequence[JobState]:
    """Those that are left to look through."""
    if filters == Filters():
        raise Invalid("body", "needs at least one filter: state, task, queue, q, since or until")
    states = [state for state in action.states if filters.state in (None, state)]
    if not states:
        raise Invalid("state", f"expected one that allows this: {', '.join(action.states)}")
    if after and after.state not in states:
        raise Invalid("cursor", "expected the `next` of a call with the same filters")
    return states[states.index(after.state) :] if after else states


def _find(
    database: db.Database, action: Action, filters: Filters, most: int, after: Place | None
) -> tuple[list[Place], Place | None]:
    with database.session(reading=True) as session:
        return lists.places(session, filters, most, after, *action.also, *_within_limits())


def _within_limits() -> list[ColumnElement[bool]]:
    who = actors.current()
    if not who.tasks:
        return []
    return [Job.task.in_(filter(who.may_use, current_app.extensions["celery"].tasks))]


def _do(database: db.Database, action: Action, found: Sequence[Place]) -> int:
    """How many of them it was done to."""
    ids = [place.id for place in found]

    def change(session: Session) -> int:
        done = action.verb(session, ids)
        audit.record(session, action.name, None, jobs=done)
        return done

    return database.run_here(change)
