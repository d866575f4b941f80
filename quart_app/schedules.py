"""Rules that make jobs: when each is due next, and submitting what has become due."""

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import uuid_utils
from celery.schedules import BaseSchedule, crontab
from cronsim import CronSim, CronSimError
from cronsim.cronsim import Field
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from quart_app import db, jobs
from quart_app.errors import Problem
from quart_app.models import Schedule

#: How many missed due times the policy "all" makes up for at most.
MOST_MISSED = 100
#: Seconds by which a due time may be late and still not count as missed.
GRACE = 60.0
_MOST_A_TICK = 100
_LONGEST = 100 * 366 * 86400.0
_LONGEST_CRON = 255

logger = logging.getLogger(__name__)


def tick(session: Session) -> float:
    """Submits what is due; seconds until the next due time, 60 at most.

    Looks by a session of its own that only reads: `session` is used, and locks SQLite for others,
    only when there is something to submit.
    """
    with db.session(reading=True) as looking:
        at = looking.scalars(select(db.now())).one()
        waiting = select(Schedule).where(Schedule.paused.is_(False), Schedule.next_at.is_not(None))
        soonest = looking.scalars(waiting.order_by(Schedule.next_at).limit(_MOST_A_TICK)).all()
    due = [schedule for schedule in soonest if schedule.next_at and schedule.next_at <= at]
    for schedule in due:
        _fire(session, schedule, at)
    if due or not soonest:
        return 0.0 if due else 60.0
    return min(60.0, ((soonest[0].next_at or at) - at).total_seconds())


def times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Its due times after `after`, in UTC, until it ends."""
    if schedule.starts_at:
        after = max(after, schedule.starts_at - timedelta(microseconds=1))
    every = _cron_times(schedule, after) if schedule.cron else _interval_times(schedule, after)
    ends_at = schedule.ends_at
    return takewhile(lambda time: ends_at is None or time <= ends_at, every)


def adopt_settings(session: Session, entries: Mapping[str, Any], timezone: str) -> None:
    """Makes the schedules of CELERY_BEAT_SCHEDULE rows, and removes those it no longer has.

    Their pause and their next due time outlive a restart. An entry that cannot be used is logged.
    """
    known = session.scalars(select(Schedule).where(Schedule.source == "settings")).all()
    by_name = {schedule.name: schedule for schedule in known}
    at = session.scalars(select(db.now())).one()
    wanted = {name: rule for name, entry in entries.items() if (rule := _entry(name, entry))}
    for name in by_name.keys() - wanted.keys():
        session.execute(delete(Schedule).where(Schedule.id == by_name[name].id))
    for name, fields in wanted.items():
        if name in by_name:
            _change(by_name[name], fields | {"timezone": timezone}, at)
        else:
            _add(session, name, fields | {"timezone": timezone}, at)
    session.flush()


def _fire(session: Session, schedule: Schedule, at: datetime) -> None:
    """Submits the due times that its policy wants; of any number of beats one gets to do it."""
    next_at = next(times(schedule, at), None)
    mine = (Schedule.id == schedule.id, Schedule.next_at == schedule.next_at)
    claimed = update(Schedule).where(*mine, Schedule.paused.is_(False)).values(next_at=next_at)
    claimed = claimed.execution_options(synchronize_session=False)
    if session.execute(claimed).rowcount == 0:  # type: ignore[attr-defined]
        return
    for due_at in _wanted(schedule, at):
        _submit(session, schedule, due_at)


def _wanted(schedule: Schedule, at: datetime) -> list[datetime]:
    passed = _passed(schedule, at, MOST_MISSED if schedule.missed == "all" else 1)
    late = (at - passed[-1]).total_seconds() > GRACE
    return [] if schedule.missed == "skip" and late else passed


def _passed(schedule: Schedule, at: datetime, most: int) -> list[datetime]:
    """Its newest due times up to `at`, without going through all since a beat last ran."""
    first = schedule.next_at or at
    window = timedelta(minutes=2)
    while True:
        since = max(first, at - window)
        found = list(takewhile(lambda time: time <= at, times(schedule, since)))
        if since == first or len(found) >= most:
            return [*([first] if since == first else []), *found][-most:]
        window *= 60


def _submit(session: Session, schedule: Schedule, due_at: datetime) -> None:
    try:
        with session.begin_nested():
            jobs.submit(
                session, schedule.task, args=schedule.args, kwargs=schedule.kwargs,
                queue=schedule.queue, eta=due_at, schedule_id=schedule.id,
            )  # fmt: skip
    except IntegrityError:
        pass  # there is a job for this due time
    except (Problem, DataError) as problem:
        logger.error("Schedule %s made no job: %s", schedule.name, problem)


def _cron_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    every = CronSim(schedule.cron or "", after.astimezone(ZoneInfo(schedule.timezone)))
    # Celery's crontab wants the day of the month and the day of the week, cron either of them.
    every.day_and = every.day_and or schedule.source == "settings"
    for time in every:
        yield time.astimezone(UTC)


def _interval_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    step = timedelta(seconds=schedule.interval or 0)
    first = schedule.starts_at or schedule.created_at
    passed = max(0, (after - first) // step + 1)
    time = first + passed * step
    while True:
        yield time
        time += step


def _entry(name: str, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """The columns that an entry of CELERY_BEAT_SCHEDULE stands for; None when it cannot be used."""
    try:
        cron, interval = _rule(entry["schedule"])
        args, kwargs = list(entry.get("args") or ()), dict(entry.get("kwargs") or {})
        json.dumps([args, kwargs], allow_nan=False)
        queue = (entry.get("options") or {}).get("queue")
        return {
            "cron": cron, "interval": interval, "task": str(entry["task"]),
            "args": args, "kwargs": kwargs, "queue": queue and str(queue),
        }  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logger.error("CELERY_BEAT_SCHEDULE: %r is left out: %s", name, error)
        return None


def _rule(when: Any) -> tuple[str | None, float | None]:
    """The cron fields or the seconds of what Celery takes for a schedule."""
    if isinstance(when, crontab):
        return _cron(when), None
    if isinstance(when, BaseSchedule) and not hasattr(when, "run_every"):
        raise TypeError(f"a {type(when).__name__} schedule is neither a crontab nor an interval")
    when = getattr(when, "run_every", when)
    seconds = when.total_seconds() if isinstance(when, timedelta) else float(when)
    if not 0 < seconds < _LONGEST:
        raise ValueError(f"an interval of {seconds} seconds")
    return None, seconds


def _cron(when: crontab) -> str:
    fields = {
        "minute": Field.MINUTE, "hour": Field.HOUR, "day_of_month": Field.DAY,
        "month_of_year": Field.MONTH, "day_of_week": Field.DOW,
    }  # fmt: skip
    text = " ".join(
        _spelling(field, getattr(when, f"_orig_{name}"), getattr(when, name))
        for name, field in fields.items()
    )
    if len(text) > _LONGEST_CRON:
        raise ValueError(f"a crontab of {len(text)} characters")
    return text


def _spelling(field: Field, spec: Any, values: Collection[int]) -> str:
    """As it was written if cron reads it alike, else the values it stands for."""
    try:
        read = field.parse(str(spec).upper())
    except CronSimError:
        read = set()
    alike = {0 if value == 7 else value for value in read} if field is Field.DOW else read
    return str(spec) if alike == set(values) else ",".join(map(str, sorted(values)))


def _add(session: Session, name: str, fields: Mapping[str, Any], at: datetime) -> None:
    known = {"id": str(uuid_utils.uuid7()), "name": name, "source": "settings", "missed": "once"}
    schedule = Schedule(**known, **fields, created_at=at)
    schedule.next_at = next(times(schedule, at), None)
    try:
        with session.begin_nested():
            session.add(schedule)
    except IntegrityError:
        logger.warning("CELERY_BEAT_SCHEDULE: there is a schedule named %r already.", name)


def _change(schedule: Schedule, fields: Mapping[str, Any], at: datetime) -> None:
    rule = ("cron", "interval", "timezone")
    changed = any(getattr(schedule, name) != fields[name] for name in rule)
    for name, value in fields.items():
        setattr(schedule, name, value)
    if changed or schedule.next_at is None:
        schedule.next_at = next(times(schedule, at), None)
