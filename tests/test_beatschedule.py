"""What settings give beat is read as rules, in cron's words and due when Celery says so."""

import logging
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import BaseSchedule, crontab, schedule

from quart_app import beatschedule, duetimes
from tests.book import ADD
from tests.test_duetimes import rule


class Tide(BaseSchedule):
    """As Celery's `solar`: due when something else than a clock says so."""


def entries(**given: Any) -> dict[str, Any]:
    """As settings have them: name=schedule, or a whole entry."""
    return {
        name: entry if isinstance(entry, dict) else {"task": ADD, "args": [1], "schedule": entry}
        for name, entry in given.items()
    }


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
    assert beatschedule.rule(when) == (cron, interval)


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
    row = rule(cron=beatschedule.rule(when)[0], source="settings")
    last = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)
    when.nowfun, when.tz = (lambda: last), UTC
    for time in islice(duetimes.after(row, last), 12):
        start, ends_in, _ = when.remaining_delta(last, ZoneInfo("UTC"))
        assert time == start + ends_in
        last = time
        when.nowfun = lambda: last  # noqa: B023


def test_an_entry_that_cannot_be_used_is_left_out_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unusable = {
        "sun": Tide(), "never": 0, "back": timedelta(-1), "words": "often", "endless": 1e12,
        "too_often": 1e-9, "no_task": {"schedule": 60}, "no_time": {"task": ADD},
        "objects": {"task": ADD, "schedule": 9, "args": [object()]},
        "nothing": {"task": ADD, "schedule": None},
    }  # fmt: skip
    assert beatschedule.read(entries(**unusable, good=60)).keys() == {"good"}
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [line.split("'")[1] for line in said] == list(unusable)
    assert "Tide schedule" in said[0]
    assert all("\n" not in line for line in said)
