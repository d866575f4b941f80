"""Due times: cron and intervals across clock changes, from their start to their end."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from quart_app import duetimes
from quart_app.models import Schedule

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def rule(**columns: Any) -> Schedule:
    given = {"cron": None, "interval": None, "timezone": "UTC", "source": "api"}
    made = datetime(2026, 1, 1, tzinfo=UTC)
    return Schedule(**given | {"created_at": made} | columns)


def local(cron: str, zone: str, day: tuple[int, int, int], hours: int = 24) -> list[str]:
    """The due times within the hours after a local midnight, as that place's clocks show them."""
    start = datetime(*day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    every = duetimes.after(rule(cron=cron, timezone=zone), start - timedelta(seconds=1))
    soon = list(islice(every, 200))
    return [
        time.astimezone(ZoneInfo(zone)).strftime("%H:%M%z")
        for time in soon if time < start + timedelta(hours=hours)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "day", "cron", "expected"),
    [
        (BERLIN, (2026, 3, 29), "30 2 * * *", ["03:00+0200"]),
        (BERLIN, (2026, 10, 25), "30 2 * * *", ["02:30+0200"]),
        (BERLIN, (2026, 10, 25), "0 1,2,3 * * *", ["01:00+0200", "02:00+0200", "03:00+0100"]),
        (NEW_YORK, (2026, 3, 8), "15 2 * * *", ["03:00-0400"]),
        (NEW_YORK, (2026, 11, 1), "15 1 * * *", ["01:15-0400"]),
        (NEW_YORK, (2026, 11, 2), "15 1 * * *", ["01:15-0500"]),
        (LORD_HOWE, (2026, 10, 4), "15 2 * * *", ["02:30+1100"]),
        (LORD_HOWE, (2026, 4, 5), "45 1 * * *", ["01:45+1100"]),
    ],
)
def test_a_doubled_hour_fires_once_and_a_skipped_one_right_after_it(
    zone: str, day: tuple[int, int, int], cron: str, expected: list[str]
) -> None:
    assert local(cron, zone, day) == expected


@pytest.mark.parametrize(
    ("zone", "day", "cron"),
    [
        (BERLIN, (2026, 10, 25), "15,45 2 * * *"),
        (NEW_YORK, (2026, 11, 1), "15,45 1 * * *"),
        (LORD_HOWE, (2026, 4, 5), "35,55 1 * * *"),
    ],
)
def test_what_begins_within_a_doubled_hour_never_goes_back(
    zone: str, day: tuple[int, int, int], cron: str
) -> None:
    midnight = datetime(*day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    for minutes in range(0, 300, 5):
        at = midnight + timedelta(minutes=minutes)
        times = list(islice(duetimes.after(rule(cron=cron, timezone=zone), at), 3))
        assert [at, *times] == sorted({at, *times})


@pytest.mark.parametrize(
    ("zone", "day", "cron", "expected"),
    [
        (BERLIN, (2026, 3, 28), "30 2 * * *", [False, True, False]),
        (BERLIN, (2026, 3, 28), "0 3 * * *", [False, False, False]),
        (BERLIN, (2026, 10, 24), "30 2 * * *", [False, False, False]),
        (NEW_YORK, (2026, 3, 7), "30 2 * * *", [False, True, False]),
        (NEW_YORK, (2026, 3, 8), "0 * * * *", [False, False, False]),
        (LORD_HOWE, (2026, 10, 3), "15 2 * * *", [False, True, False]),
        ("America/Havana", (2026, 3, 7), "@daily", [True, False, False]),
    ],
)
def test_a_time_that_the_clocks_skipped_is_known_to_be_moved(
    zone: str, day: tuple[int, int, int], cron: str, expected: list[bool]
) -> None:
    row = rule(cron=cron, timezone=zone)
    midnight = datetime(*day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    times = islice(duetimes.after(row, midnight), 3)
    assert [duetimes.is_moved(row, time) for time in times] == expected


def test_an_interval_goes_by_elapsed_time_whatever_the_clocks_show() -> None:
    first = datetime(2026, 3, 28, 1, 30, tzinfo=UTC)
    row = rule(interval=86400, timezone=BERLIN, starts_at=first)
    times = list(islice(duetimes.after(row, first), 2))
    assert times == [first + timedelta(days=1), first + timedelta(days=2)]
    assert not any(duetimes.is_moved(row, time) for time in times)


@pytest.mark.parametrize(
    "cron", ["0 0 29 2 *", "0 0 * 2 mon#5", "@WEEKLY", " */5  * * * 1-5 ", "0 0 L * *"]
)
def test_a_rule_that_is_ever_due_is_cron(cron: str) -> None:
    assert duetimes.fault_of(cron) is None


@pytest.mark.parametrize(
    "cron",
    [
        "", "@reboot", "@", "often", "* * * *", "* * * * * *", "60 * * * *", "0 0 31 2 *",
        "0 0 30-31 2 *", "0 0 */31 2 0#5", "*/0 * * * *", "5-1 * * * *", "0 0 0 * *",
        "\0 * * * *", "é * * * *", "٣ * * * *", "1,2," + "3," * 200 + "4 * * * *",
    ],
)  # fmt: skip
def test_a_rule_that_is_never_due_is_none(cron: str) -> None:
    assert duetimes.fault_of(cron)


@pytest.mark.parametrize(
    ("cron", "fault"),
    [("61 * * * *", "a bad minute"), ("* * * *", "number of fields"), ("0 0 31 2 *", "bad day")],
)
def test_what_is_wrong_with_a_rule_is_said(cron: str, fault: str) -> None:
    assert fault in str(duetimes.fault_of(cron))


def test_no_time_is_beyond_what_a_calendar_knows() -> None:
    rare = rule(interval=duetimes.LONGEST)
    assert 0 < len(list(duetimes.after(rare, datetime(2026, 1, 1, tzinfo=UTC)))) < 11
    late = datetime(2999, 6, 1, tzinfo=UTC)
    assert list(duetimes.after(rule(cron="0 0 1 1 *", starts_at=late), late)) == []


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE, "Asia/Shanghai"])
@pytest.mark.parametrize("cron", ["0 * * * *", "30 1,2,3 * * *", "5 0 * * 0"])
def test_the_times_of_a_year_are_those_of_cronsim_and_never_twice(zone: str, cron: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    until = start + timedelta(days=366)
    expected: Iterator[datetime] = CronSim(cron, start.astimezone(ZoneInfo(zone)))
    mine = duetimes.after(rule(cron=cron, timezone=zone, ends_at=until), start)
    for time in mine:
        assert time == next(expected).astimezone(UTC)
    assert next(expected) > until


def test_an_interval_is_anchored_and_does_not_drift() -> None:
    first = datetime(2026, 1, 1, 0, 0, 7, 250_000, tzinfo=UTC)
    row = rule(interval=0.3, starts_at=first)
    late = first + timedelta(days=400, milliseconds=1)
    times = list(islice(duetimes.after(row, late), 50))
    assert all(later - sooner == timedelta(seconds=0.3) for sooner, later in pairwise(times))
    assert (times[0] - first) % timedelta(seconds=0.3) == timedelta(0)
    assert late < times[0] <= late + timedelta(seconds=0.3)
    assert next(duetimes.after(row, first - timedelta(days=1))) == first


def test_nothing_is_due_before_it_starts_or_after_it_ends() -> None:
    starts, ends = (datetime(2026, 5, day, 12, tzinfo=UTC) for day in (1, 4))
    row = rule(cron="0 12 * * *", starts_at=starts, ends_at=ends)
    days = [time.day for time in duetimes.after(row, datetime(2026, 1, 1, tzinfo=UTC))]
    assert days == [1, 2, 3, 4]
