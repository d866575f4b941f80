"""When a schedule is due: cron fields and intervals as points in time, across clock changes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from quart_app.errors import Conflict
from quart_app.models import Schedule
from quart_app.newjobs import YEARS

#: The seconds that an interval may have: beat keeps up with no shorter one.
SHORTEST, LONGEST = 0.1, 100 * 366 * 86400.0
LONGEST_CRON = 255
_FORMS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}  # fmt: skip


def after(schedule: Schedule, at: datetime) -> Iterator[datetime]:
    """Its due times after `at`, in UTC, until it ends.

    Raises Conflict for a cron rule in a zone that this machine does not know.
    """
    if schedule.starts_at:
        at = max(at, schedule.starts_at - timedelta(microseconds=1))
    every = _cron_times(schedule, at) if schedule.cron else _interval_times(schedule, at)
    ends_at = schedule.ends_at
    return takewhile(
        lambda time: time.year in YEARS and (ends_at is None or time <= ends_at), every
    )


def next_after(schedule: Schedule, at: datetime) -> datetime | None:
    return next(after(schedule, at), None)


def is_moved(schedule: Schedule, time: datetime) -> bool:
    """Whether its rule names a time that the clocks of its zone skipped, and this came instead."""
    if not schedule.cron:
        return False
    local = time.astimezone(_zone(schedule))
    named = _cron(schedule.cron, local)
    return local.hour not in named.hours or local.minute not in named.minutes


def local(schedule: Schedule, time: datetime) -> datetime:
    """The time as the clocks of its zone show it; UTC where this machine does not know the zone."""
    try:
        return time.astimezone(_zone(schedule))
    except Conflict:
        return time.astimezone(UTC)


def fault_of(cron: str) -> str | None:
    """Why it is no rule of five fields, or form such as @daily, that is ever due; None if it is."""
    if cron.lower() not in _FORMS and len(cron.split()) != 5:
        return "this has another number of fields"
    if len(cron) > LONGEST_CRON:
        return "this is too long"
    try:
        return None if next(_cron(cron, datetime.now(UTC)), None) else "this is never due"
    except CronSimError as error:  # which says no more than which field is a bad one
        return f"this has a {str(error).lower()}, or one that never comes"


def _zone(schedule: Schedule) -> ZoneInfo:
    try:
        return ZoneInfo(schedule.timezone)
    except (ZoneInfoNotFoundError, ValueError):  # it was made by a machine that knows more of them
        raise Conflict(
            f"The schedule {schedule.name!r} is in the time zone {schedule.timezone}, which this"
            " machine does not know: update its tzdata, or change the schedule's zone."
        ) from None


def _cron(text: str, at: datetime) -> CronSim:
    return CronSim(_FORMS.get(text.lower(), text), at)


def _cron_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    every = _cron(schedule.cron or "", after.astimezone(_zone(schedule)))
    # Celery's crontab wants the day of the month and the day of the week, cron either of them.
    every.day_and = every.day_and or schedule.source == "settings"
    for local in every:
        # From within the second pass of a doubled hour, cronsim goes through the first again.
        if (time := local.astimezone(UTC)) > after:
            yield time


def _interval_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    step = timedelta(seconds=schedule.interval or 0)
    first = schedule.starts_at or schedule.created_at
    passed = max(0, (after - first) // step + 1)
    time = first + passed * step
    while True:
        yield time
        time += step
