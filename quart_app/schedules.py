"""Rules that make jobs: made, changed, paused, run and deleted, by people and by settings."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from itertools import islice
from typing import Any

import uuid_utils
from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quart_app import actors, audit, beatschedule, db, duetimes, jobs, newschedules
from quart_app.errors import Conflict, NotFound
from quart_app.models import Job, Schedule
from quart_app.newschedules import NewSchedule

_RULE = ("cron", "interval", "timezone", "starts_at", "ends_at")
_OTHER_RULE = {"cron": "interval", "interval": "cron"}

logger = logging.getLogger(__name__)


def create(session: Session, /, name: str, task: str, **options: Any) -> Schedule:
    """`options` are the other fields of NewSchedule.

    Raises Denied, NotFound, Invalid or Conflict.
    """
    at = db.clock(session)
    columns = newschedules.columns(NewSchedule(name=name, task=task, **options))
    with _unique(name):
        made = _add(session, columns | {"source": "api"}, at)
    return _recorded(session, "create", made)


def get(session: Session, schedule_id: str, *, held: bool = False) -> Schedule:
    """Raises NotFound; the row may be `held` until the commit, against beats and others."""
    found = db.by_id(session, Schedule, schedule_id, held=held)
    if found is None:
        raise NotFound(f"There is no schedule {schedule_id}.")
    return found


def named(session: Session, name: str) -> Schedule:
    found = session.scalar(select(Schedule).where(Schedule.name == name))
    if found is None:
        raise NotFound(f"There is no schedule named {name!r}.")
    return found


def everyone(session: Session) -> list[Schedule]:
    return list(session.scalars(select(Schedule).order_by(Schedule.name)))


def upcoming(session: Session, schedule_id: str, count: int) -> list[tuple[datetime, bool]]:
    """The next times of its rule in its zone, paused or not; whether a clock change moved each.

    Raises NotFound, and Conflict where this machine does not know the zone.
    """
    schedule = get(session, schedule_id)
    at = db.clock(session)
    times = islice(duetimes.after(schedule, at), count)
    return [(duetimes.local(schedule, time), duetimes.is_moved(schedule, time)) for time in times]


def last_jobs(session: Session, schedule_id: str, count: int) -> list[Job]:
    """Its newest jobs, by the clock and by hand, newest first."""
    mine = select(Job).where(Job.schedule_id == schedule_id)
    # Two questions that the index on (schedule_id, eta) answers at once, however many there are.
    by_clock = mine.where(Job.eta.is_not(None)).order_by(Job.eta.desc()).limit(count)
    by_hand = mine.where(Job.eta.is_(None)).order_by(Job.id.desc()).limit(count)
    found = [*session.scalars(by_clock), *session.scalars(by_hand)]
    return sorted(found, key=lambda job: job.id, reverse=True)[:count]


def changeable(session: Session, schedule_id: str, *, held: bool = False) -> Schedule:
    """As `get`; raises Denied, NotFound, and Conflict for one from settings."""
    schedule = _allowed(session, schedule_id, held=held)
    if schedule.source == "settings":
        raise Conflict(
            f"The schedule {schedule.name!r} comes from CELERY_BEAT_SCHEDULE: change it there."
        )
    return schedule


def change(session: Session, /, schedule_id: str, **changes: Any) -> Schedule:
    """`changes` are fields of NewSchedule; a cron given takes the place of an interval, and back.

    Raises Denied, NotFound, Invalid or Conflict, which is for those from settings too.
    """
    schedule = changeable(session, schedule_id, held=True)
    at = db.clock(session)
    known = {field.name: getattr(schedule, field.name) for field in fields(NewSchedule)}
    differing = sorted(name for name, value in changes.items() if value != known[name])
    for given, other in _OTHER_RULE.items():
        if changes.get(given) is not None:
            known[other] = None
    new = NewSchedule(**known | changes)
    with _unique(new.name), session.begin_nested():
        _set(schedule, newschedules.columns(new), at)
    return _recorded(session, "change", schedule, fields=differing)


def pause(session: Session, schedule_id: str) -> Schedule:
    """From now on it is never due; as often as you like."""
    schedule = _allowed(session, schedule_id, held=True)
    schedule.paused, schedule.next_at = True, None
    return _recorded(session, "pause", schedule)


def resume(session: Session, schedule_id: str) -> Schedule:
    """Due again from now on: what passed meanwhile is not made up for.

    Raises Conflict where this machine does not know its zone.
    """
    schedule = _allowed(session, schedule_id, held=True)
    if schedule.paused:
        at = db.clock(session)
        schedule.paused, schedule.next_at = False, duetimes.next_after(schedule, at)
    return _recorded(session, "resume", schedule)


def run_now(session: Session, /, schedule_id: str, **keys: Any) -> Job:
    """A job of it at once, also while it is paused; its due times stay as they are.

    `keys` are the fields of NewJob that tell a repeated request.
    """
    schedule = get(session, schedule_id)
    job = submit(session, schedule, **keys)
    if job not in session:  # as one that was there before is
        _recorded(session, "run", schedule, job=job.id)
    return job


def submit(
    session: Session, schedule: Schedule, due_at: datetime | None = None, **keys: Any
) -> Job:
    """The job of one due time; without one, a job by hand, of which there may be any number."""
    return jobs.submit(
        session, schedule.task, args=schedule.args, kwargs=schedule.kwargs,
        queue=schedule.queue, eta=due_at, schedule_id=schedule.id, **keys,
    )  # fmt: skip


def delete(session: Session, schedule_id: str) -> None:
    """Its jobs stay. Raises NotFound, and Conflict for one from settings."""
    schedule = changeable(session, schedule_id, held=True)
    _recorded(session, "delete", schedule, **_rule(schedule))
    session.delete(schedule)


def _allowed(session: Session, schedule_id: str, *, held: bool) -> Schedule:
    """As `get`; raises Denied for who may not use its task."""
    schedule = get(session, schedule_id, held=held)
    actors.check(schedule.task)
    return schedule


def _rule(schedule: Schedule) -> dict[str, Any]:
    """When it was due, in JSON."""
    given = {name: getattr(schedule, name) for name in _RULE}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in given.items()
        if value is not None
    }


def adopt_settings(session: Session, entries: Mapping[str, Any], timezone: str) -> None:
    """Makes the schedules of CELERY_BEAT_SCHEDULE rows, and removes those it no longer has.

    Their pause and their next due time outlive a restart. An entry that cannot be used is logged.
    """
    known = session.scalars(select(Schedule).where(Schedule.source == "settings")).all()
    by_name = {schedule.name: schedule for schedule in known}
    at = db.clock(session)
    wanted = beatschedule.read(entries)
    for name in by_name.keys() - wanted.keys():
        session.execute(delete_from(Schedule).where(Schedule.id == by_name[name].id))
    for name, rule in wanted.items():
        columns = rule | {"name": name, "timezone": timezone}
        if name in by_name:
            _set(by_name[name], columns, at)
        else:
            _adopt(session, columns, at)
    session.flush()


def _adopt(session: Session, columns: Mapping[str, Any], at: datetime) -> None:
    try:
        _add(session, {**columns, "source": "settings", "missed": "once"}, at)
    except IntegrityError:
        name = columns["name"]
        logger.warning("CELERY_BEAT_SCHEDULE: there is a schedule named %r already.", name)


def _add(session: Session, columns: Mapping[str, Any], at: datetime) -> Schedule:
    schedule = Schedule(id=str(uuid_utils.uuid7()), paused=False, created_at=at, **columns)
    schedule.next_at = duetimes.next_after(schedule, at)
    with session.begin_nested():
        session.add(schedule)
    return schedule


def _set(schedule: Schedule, columns: Mapping[str, Any], at: datetime) -> None:
    before = [getattr(schedule, name) for name in _RULE]
    for name, value in columns.items():
        setattr(schedule, name, value)
    is_new = before != [getattr(schedule, name) for name in _RULE]
    if (is_new or schedule.next_at is None) and not schedule.paused:
        schedule.next_at = duetimes.next_after(schedule, at)


def _recorded(session: Session, verb: str, schedule: Schedule, **detail: Any) -> Schedule:
    facts = {"name": schedule.name, "task": schedule.task, **detail}
    audit.record(session, f"schedule.{verb}", schedule.id, **facts)
    return schedule


@contextmanager
def _unique(name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise Conflict(f"There is a schedule named {name!r} already.") from None
