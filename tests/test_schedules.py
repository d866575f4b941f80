"""Schedules: what settings give become book, due times, and one job for each of them."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, pairwise
from time import monotonic
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import BaseSchedule, crontab, schedule
from cronsim import CronSim
from sqlalchemy import select, update

from quart_app import db, schedules
from quart_app.models import Job, Schedule
from tests.book import ADD, Book, at_once

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


class Tide(BaseSchedule):
    """As Celery's `solar`: due when something else than a clock says so."""


def rule(**columns: Any) -> Schedule:
    given = {"cron": None, "interval": None, "timezone": "UTC", "source": "api"}
    made = datetime(2026, 1, 1, tzinfo=UTC)
    return Schedule(**given | {"created_at": made} | columns)


def adopt(book: Book, **entries: Any) -> dict[str, Schedule]:
    """The rows after a start with these entries: name=schedule, or a whole entry."""
    whole = {
        name: entry if isinstance(entry, dict) else {"task": ADD, "args": [1], "schedule": entry}
        for name, entry in entries.items()
    }
    book(schedules.adopt_settings, whole, "UTC")
    rows = book(lambda session: session.scalars(select(Schedule)).all())
    return {row.name: row for row in rows}


def make_due(book: Book, row: Schedule, ago: float, **more: Any) -> datetime:
    at: datetime = book(lambda session: session.scalars(select(db.now(-ago))).one())
    at = at.replace(microsecond=0)
    book.set(row, next_at=at, created_at=at, **more)
    return at


def due_times(book: Book) -> list[datetime | None]:
    return list(book(lambda session: session.scalars(select(Job.eta).order_by(Job.eta)).all()))


def local(cron: str, zone: str, day: tuple[int, int, int], hours: int = 24) -> list[str]:
    """The due times within the hours after a local midnight, as that place's clocks show them."""
    start = datetime(*day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    every = schedules.times(rule(cron=cron, timezone=zone), start - timedelta(seconds=1))
    soon = list(islice(every, 200))
    return [
        time.astimezone(ZoneInfo(zone)).strftime("%H:%M%z")
        for time in soon if time < start + timedelta(hours=hours)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "cron", "interval"),
    [
        (crontab(), "* * * * *", None),
        (crontab(minute="*/15", hour="8-17"), "*/15 8-17 * * *", None),
        (crontab(minute=0, hour=[3, 1, 2]), "0 1,2,3 * * *", None),
        (crontab(minute={30, 0}, hour=range(3)), "0,30 0,1,2 * * *", None),
        (crontab(0, 0, day_of_week="monday,wed"), "0 0 * * 1,3", None),
        (crontab(0, 0, "mon-fri", month_of_year="jan,7"), "0 0 * jan,7 mon-fri", None),
        (crontab(0, "22-2"), "0 0,1,2,22,23 * * *", None),
        (crontab(0, 0, "*", "1-31/10", "*/3"), "0 0 1-31/10 */3 *", None),
        (timedelta(minutes=5), None, 300.0),
        (2.5, None, 2.5),
        (30, None, 30.0),
        (schedule(timedelta(hours=1)), None, 3600.0),
    ],
)  # fmt: skip
def test_what_celery_takes_for_a_schedule_is_read(
    when: Any, cron: str | None, interval: float | None
) -> None:
    assert schedules._rule(when) == (cron, interval)


@pytest.mark.parametrize(
    "when",
    [
        crontab("*/7", "*/5"),
        crontab(0, "22-2", day_of_week="fri-mon"),
        crontab([0, 30], {1, 13}, day_of_month="1-7", day_of_week="mon"),
        crontab(15, 6, day_of_month="31", month_of_year="*/2"),
        crontab(5, 4, day_of_week="sunday", day_of_month="*/2"),
    ],
)
def test_a_crontab_is_due_when_celery_says_so(when: crontab) -> None:
    row = rule(cron=schedules._cron(when), source="settings")
    last = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)
    when.nowfun, when.tz = (lambda: last), UTC
    for time in islice(schedules.times(row, last), 12):
        start, ends_in, _ = when.remaining_delta(last, ZoneInfo("UTC"))
        assert time == start + ends_in
        last = time
        when.nowfun = lambda: last  # noqa: B023


@pytest.mark.parametrize(
    ("zone", "day", "cron", "expected"),
    [
        (BERLIN, (2026, 3, 29), "30 2 * * *", ["03:00+0200"]),
        (BERLIN, (2026, 10, 25), "30 2 * * *", ["02:30+0200"]),
        (BERLIN, (2026, 10, 25), "0 1,2,3 * * *", ["01:00+0200", "02:00+0200", "03:00+0100"]),
        (NEW_YORK, (2026, 3, 8), "15 2 * * *", ["03:00-0400"]),
        (NEW_YORK, (2026, 11, 1), "15 1 * * *", ["01:15-0400"]),
        (NEW_YORK, (2026, 11, 2), "15 1 * * *", ["01:15-0500"]),
    ],
)
def test_a_doubled_hour_fires_once_and_a_skipped_one_right_after_it(
    zone: str, day: tuple[int, int, int], cron: str, expected: list[str]
) -> None:
    assert local(cron, zone, day) == expected


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, "Australia/Lord_Howe", "Asia/Shanghai"])
@pytest.mark.parametrize("cron", ["0 * * * *", "30 1,2,3 * * *", "5 0 * * 0"])
def test_the_times_of_a_year_are_those_of_cronsim_and_never_twice(zone: str, cron: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    until = start + timedelta(days=366)
    expected: Iterator[datetime] = CronSim(cron, start.astimezone(ZoneInfo(zone)))
    mine = schedules.times(rule(cron=cron, timezone=zone, ends_at=until), start)
    for time in mine:
        assert time == next(expected).astimezone(UTC)
    assert next(expected) > until


def test_an_interval_is_anchored_and_does_not_drift() -> None:
    first = datetime(2026, 1, 1, 0, 0, 7, 250_000, tzinfo=UTC)
    row = rule(interval=0.3, starts_at=first)
    late = first + timedelta(days=400, milliseconds=1)
    times = list(islice(schedules.times(row, late), 50))
    assert all(later - sooner == timedelta(seconds=0.3) for sooner, later in pairwise(times))
    assert (times[0] - first) % timedelta(seconds=0.3) == timedelta(0)
    assert late < times[0] <= late + timedelta(seconds=0.3)
    assert next(schedules.times(row, first - timedelta(days=1))) == first


def test_nothing_is_due_before_it_starts_or_after_it_ends() -> None:
    starts, ends = (datetime(2026, 5, day, 12, tzinfo=UTC) for day in (1, 4))
    row = rule(cron="0 12 * * *", starts_at=starts, ends_at=ends)
    days = [time.day for time in schedules.times(row, datetime(2026, 1, 1, tzinfo=UTC))]
    assert days == [1, 2, 3, 4]


def test_entries_are_added_changed_and_removed_with_settings(book: Book) -> None:
    before = adopt(book, stays=60, changes=60, goes=60)
    after = adopt(book, stays=60, changes=crontab(minute=5), comes=timedelta(days=1))
    assert after.keys() == {"stays", "changes", "comes"}
    assert after["stays"].next_at == before["stays"].next_at
    assert (after["changes"].id, after["changes"].cron) == (before["changes"].id, "5 * * * *")
    assert after["changes"].next_at != before["changes"].next_at


def test_a_pause_and_the_next_due_time_outlive_a_restart(book: Book) -> None:
    row = adopt(book, minutely=60)["minutely"]
    was = make_due(book, row, ago=600, paused=True)
    row = adopt(book, minutely=60)["minutely"]
    assert (row.paused, row.next_at) == (True, was)


def test_two_beats_that_start_at_once_agree_on_the_rows(book: Book) -> None:
    entries = {name: {"task": ADD, "schedule": 60} for name in "abc"}
    start = partial(book, schedules.adopt_settings, entries, "UTC")
    assert at_once([start] * 4) == [None] * 4
    assert book.count(Schedule) == 3


def test_an_entry_that_cannot_be_used_is_left_out_with_one_line(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    unusable = {
        "sun": Tide(), "never": 0, "back": timedelta(-1), "words": "often",
        "no_task": {"schedule": 60}, "objects": {"task": ADD, "schedule": 9, "args": [object()]},
        "no_time": {"task": ADD}, "nothing": {"task": ADD, "schedule": None},
    }  # fmt: skip
    assert adopt(book, **unusable, good=60).keys() == {"good"}
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [line.split("'")[1] for line in said] == list(unusable)
    assert "Tide schedule" in said[0]
    assert all("\n" not in line for line in said)


def test_eight_beats_at_once_make_one_job_for_each_due_time(book: Book) -> None:
    rows = adopt(book, **{f"s{number}": 3600 for number in range(6)}).values()
    expected = sorted(make_due(book, row, ago=number) for number, row in enumerate(rows))
    done = at_once([partial(book, schedules.tick)] * 8)
    assert not [error for error in done if isinstance(error, Exception)]
    assert due_times(book) == expected
    book(schedules.tick)
    assert book.count() == 6


def test_a_due_schedule_makes_a_job_that_names_it(book: Book) -> None:
    entry = {"task": ADD, "schedule": 60, "kwargs": {"left": 4}, "options": {"queue": "q"}}
    row = adopt(book, named=entry)["named"]
    at = make_due(book, row, ago=1)
    assert book(schedules.tick) == 0
    job = book(lambda session: session.scalars(select(Job)).one())
    assert (job.schedule_id, job.eta, job.queue, job.kwargs) == (row.id, at, "q", {"left": 4})
    assert 0 < book(schedules.tick) <= 60


def made_up_for(book: Book, missed: str, ago: float, every: int = 60) -> list[float]:
    """Which due times got their jobs when no beat had run, in seconds after the first of them."""
    row = adopt(book, late=every)["late"]
    first = make_due(book, row, ago=ago, missed=missed)
    book(schedules.tick)
    return [(time - first).total_seconds() for time in due_times(book) if time]


def test_of_what_was_missed_once_makes_up_for_the_newest(book: Book) -> None:
    assert made_up_for(book, "once", ago=605) == [600]


def test_of_what_was_missed_skip_makes_up_for_what_is_hardly_late(book: Book) -> None:
    assert made_up_for(book, "skip", ago=605, every=600) == [600]


def test_of_what_was_missed_skip_lets_go_what_is_late(book: Book) -> None:
    assert made_up_for(book, "skip", ago=700, every=600) == []


def test_of_what_was_missed_all_makes_up_for_everything(book: Book) -> None:
    assert made_up_for(book, "all", ago=605) == list(range(0, 601, 60))


def test_of_a_year_that_was_missed_all_makes_up_for_a_hundred(book: Book) -> None:
    year = 365 * 86400
    started = monotonic()
    assert made_up_for(book, "all", ago=year + 5) == list(range(year - 99 * 60, year + 1, 60))
    assert monotonic() - started < 5


def test_a_paused_schedule_makes_nothing(book: Book) -> None:
    row = adopt(book, resting=60)["resting"]
    make_due(book, row, ago=5, paused=True)
    book(schedules.tick)
    assert book.count() == 0


def test_a_schedule_that_has_ended_makes_its_last_job_and_no_more(book: Book) -> None:
    row = adopt(book, ending=60)["ending"]
    at = make_due(book, row, ago=5)
    book.set(row, next_at=at, ends_at=at + timedelta(seconds=1))
    book(schedules.tick)
    assert due_times(book) == [at]
    assert book(lambda session: session.scalars(select(Schedule.next_at)).one()) is None


def test_a_schedule_of_a_task_that_is_not_there_harms_no_other(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {"gone": {"task": "no.such", "schedule": 60}, "wrong": {"task": ADD, "schedule": 60}}
    rows = adopt(book, good=60, **entries)
    for number, row in enumerate(rows.values()):
        make_due(book, row, ago=5 - number)
    book(schedules.tick)
    assert book.count() == 1
    said = [record.getMessage() for record in caplog.records]
    assert any("gone" in line and "no.such" in line for line in said)
    assert any("wrong" in line and "left" in line for line in said)
    assert 0 < book(schedules.tick) <= 60


def test_a_look_that_finds_nothing_due_waits_for_no_writer(book: Book) -> None:
    adopt(book, later=3600)
    with book.database.session() as writing:
        writing.execute(update(Schedule).values(queue="other"))
        started = monotonic()
        assert book(schedules.tick) == 60
    assert monotonic() - started < 1
