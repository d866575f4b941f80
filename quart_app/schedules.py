"""Rules that make jobs: when each is due next, and submitting what has become due."""

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import uuid_utils
from celery.schedules import crontab
from celery.schedules import schedule as interval
from cronsim import CronSim
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quart_app import db, jobs
from quart_app.errors import Problem
from quart_app.models import Schedule

#: How many missed due times the policy "all" makes up for at most.
MOST_MISSED = 100
#: Seconds by which a due time may be late and still not count as missed.
GRACE = 60.0

logger = logging.getLogger(__name__)


def tick(session: Session) -> float:
    """Submits what is due; seconds until the next due time, 60 at most."""
    at = session.scalars(select(db.now())).one()
    due = select(Schedule).where(Schedule.paused.is_(False), Schedule.next_at <= at)
    for schedule in session.scalars(due.order_by(Schedule.next_at).limit(100)).all():
        _fire(session, schedule, at)
    next_at = session.scalar(
        select(Schedule.next_at)
        .where(Schedule.paused.is_(False), Schedule.next_at.is_not(None))
        .order_by(Schedule.next_at)
        .limit(1)
    )
    return min(60.0, max(0.0, (next_at - at).total_seconds())) if next_at else 60.0


def times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Its due times after `after`, in UTC, until it ends."""
    if schedule.starts_at:
        after = max(after, schedule.starts_at - timedelta(microseconds=1))
    every = _cron_times(schedule, after) if schedule.cron else _interval_times(schedule, after)
    ends_at = schedule.ends_at
    return takewhile(lambda time: ends_at is None or time <= ends_at, every)


def adopt_settings(session: Session, entries: Mapping[str, Any], timezone: str) -> None:
    """Makes the schedules of CELERY_BEAT_SCHEDULE rows, and removes those it no longer has.

    Their pause and their next due time outlive a restart.
    """
    known = session.scalars(select(Schedule).where(Schedule.source == "settings")).all()
    by_name = {schedule.name: schedule for schedule in known}
    for name in by_name.keys() - entries.keys():
        session.execute(delete(Schedule).where(Schedule.id == by_name[name].id))
    at = session.scalars(select(db.now())).one()
    for name, entry in entries.items():
        known_or_new = by_name.get(name) or _new(session, name, at)
        _adopt(known_or_new, dict(entry), timezone, at)
    session.flush()


def _fire(session: Session, schedule: Schedule, at: datetime) -> None:
    """Submits the due times that its policy wants; any number of beats may try at once."""
    was = schedule.next_at
    if was is None:
        return
    for due_at in _wanted(schedule, was, at):
        _submit(session, schedule, due_at)
    next_at = next(times(schedule, at), None)
    mine = (Schedule.id == schedule.id, Schedule.next_at == was)
    session.execute(update(Schedule).where(*mine).values(next_at=next_at))


def _wanted(schedule: Schedule, first: datetime, at: datetime) -> list[datetime]:
    passed = [first, *takewhile(lambda time: time <= at, times(schedule, first))]
    if schedule.missed == "all":
        return passed[-MOST_MISSED:]
    newest = passed[-1]
    late = (at - newest).total_seconds() > GRACE
    return [] if schedule.missed == "skip" and late else [newest]


def _submit(session: Session, schedule: Schedule, due_at: datetime) -> None:
    try:
        jobs.submit(
            session, schedule.task, args=schedule.args, kwargs=schedule.kwargs,
            queue=schedule.queue, eta=due_at, schedule_id=schedule.id,
        )  # fmt: skip
    except IntegrityError:
        pass  # another beat was first
    except Problem as problem:
        logger.error("Schedule %s made no job: %s", schedule.name, problem)


def _cron_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(schedule.timezone)
    for time in CronSim(schedule.cron or "", after.astimezone(zone)):
        yield time.astimezone(UTC)


def _interval_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    step = timedelta(seconds=schedule.interval or 0)
    first = schedule.starts_at or schedule.created_at
    passed = max(0, (after - first) // step + 1)
    time = first + passed * step
    while True:
        yield time
        time += step


def _new(session: Session, name: str, at: datetime) -> Schedule:
    schedule = Schedule(
        id=str(uuid_utils.uuid7()), name=name, source="settings", created_at=at, missed="once"
    )
    session.add(schedule)
    return schedule


def _adopt(known: Schedule, entry: dict[str, Any], timezone: str, at: datetime) -> None:
    rule = _rule(entry["schedule"])
    changed = (known.cron, known.interval, known.timezone) != (*rule, timezone)
    known.cron, known.interval = rule
    known.timezone = timezone
    known.task = entry["task"]
    known.args = list(entry.get("args") or ())
    known.kwargs = dict(entry.get("kwargs") or {})
    known.queue = (entry.get("options") or {}).get("queue")
    if changed or known.next_at is None:
        known.next_at = next(times(known, at), None)


def _rule(when: Any) -> tuple[str | None, float | None]:
    """The cron fields or the seconds of what Celery takes for a schedule."""
    if isinstance(when, crontab):
        return " ".join(_fields(when)), None
    if isinstance(when, interval):
        when = when.run_every
    seconds = when.total_seconds() if isinstance(when, timedelta) else float(when)
    return None, seconds


def _fields(when: crontab) -> list[str]:
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    fields = [getattr(when, f"_orig_{name}") for name in names]
    return [
        field if isinstance(field, str) else ",".join(map(str, field))
        if isinstance(field, (list, tuple, set, frozenset)) else str(field)
        for field in fields
    ]  # fmt: skip
