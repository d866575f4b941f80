"""Schedules: what settings give becomes book, and what people may do with them."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from celery.schedules import crontab
from sqlalchemy import select

from quart_app import db, duetimes, schedules
from quart_app.errors import Conflict, Full, Invalid, NotFound
from quart_app.models import Schedule
from tests.book import ADD, Book, at_once
from tests.test_beatschedule import entries


def adopt(book: Book, **given: Any) -> dict[str, Schedule]:
    """The rows after a start with these entries: name=schedule, or a whole entry."""
    book(schedules.adopt_settings, entries(**given), "UTC")
    rows = book(lambda session: session.scalars(select(Schedule)).all())
    return {row.name: row for row in rows}


def make_due(book: Book, row: Schedule, ago: float, **more: Any) -> datetime:
    at: datetime = book(lambda session: session.scalars(select(db.now(-ago))).one())
    at = at.replace(microsecond=0)
    book.set(row, next_at=at, created_at=at, **more)
    return at


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
    start = partial(book, schedules.adopt_settings, entries(a=60, b=60, c=60), "UTC")
    assert at_once([start] * 4) == [None] * 4
    assert book.count(Schedule) == 3


def make(book: Book, name: str = "mine", **options: Any) -> Schedule:
    given = {"task": ADD, "args": [1]} | ({} if "cron" in options else {"interval": 60})
    made: Schedule = book(schedules.create, name, **given | options)
    return made


def changed(book: Book, row: Schedule, **changes: Any) -> Schedule:
    result: Schedule = book(schedules.change, row.id, **changes)
    return result


def now(book: Book) -> datetime:
    at: datetime = book(lambda session: session.scalars(select(db.now())).one())
    return at


def test_a_schedule_is_due_for_the_first_time_after_it_was_made(book: Book) -> None:
    row = make(book, interval=60)
    assert row.next_at == row.created_at + timedelta(seconds=60)
    assert (row.missed, row.paused, row.source) == ("once", False, "api")
    assert row.timezone == book.app.config["CELERY_TIMEZONE"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cron": "* * * * *", "interval": 60}, "interval"), ({"interval": None}, "cron"),
    ({"cron": "0 0 31 2 *"}, "cron"), ({"cron": "* * * * * *"}, "cron"), ({"cron": ""}, "cron"),
    ({"interval": 0}, "interval"), ({"interval": -1}, "interval"), ({"interval": 1e-9}, "interval"),
    ({"interval": 1e12}, "interval"), ({"interval": float("nan")}, "interval"),
    ({"timezone": "Moon/Base"}, "timezone"), ({"timezone": "../../etc/passwd"}, "timezone"),
    ({"timezone": "localtime"}, "timezone"), ({"timezone": "right/Europe/Berlin"}, "timezone"),
    ({"timezone": "Europe"}, "timezone"), ({"timezone": "a\0b"}, "timezone"),
    ({"timezone": "x" * 65}, "timezone"), ({"missed": "twice"}, "missed"),
    ({"starts_at": datetime(2030, 1, 1)}, "starts_at"),  # noqa: DTZ001
    ({"ends_at": datetime(3000, 1, 1, tzinfo=UTC)}, "ends_at"),
    ({"starts_at": datetime(2030, 1, 2, tzinfo=UTC), "ends_at": datetime(2030, 1, 1, tzinfo=UTC)},
     "ends_at"),
    ({"name": ""}, "name"), ({"name": " x"}, "name"), ({"name": "a\nb"}, "name"),
    ({"name": "x" * 256}, "name"), ({"queue": "no room"}, "queue"), ({"args": ["one"]}, "args.0"),
    ({"args": [1, 2, 3]}, "args"), ({"kwargs": {"right": "x"}}, "kwargs.right"),
    ({"args": [], "kwargs": {"left": "\0"}}, "kwargs.left"),
]  # fmt: skip


def test_what_makes_no_sense_is_refused_by_its_field_and_leaves_nothing(book: Book) -> None:
    for wrong, field in WRONG:
        with pytest.raises(Invalid) as refused:
            make(book, **wrong)
        assert refused.value.field == field, wrong
    with pytest.raises(NotFound, match=r"no\.such"):
        make(book, task="no.such")
    assert book.count(Schedule) == 0


def test_a_name_is_given_once_though_many_ask_for_it(book: Book) -> None:
    done = at_once([partial(make, book)] * 4)
    assert sum(isinstance(one, Schedule) for one in done) == 1
    assert all(isinstance(one, Schedule | Conflict) for one in done), done


def test_a_name_that_another_has_cannot_be_taken_by_a_change(book: Book) -> None:
    make(book, "first")
    row = make(book, "second")
    with pytest.raises(Conflict, match="'first'"):
        changed(book, row, name="first")
    assert book(schedules.get, row.id).name == "second"


@pytest.mark.parametrize(
    "change",
    [
        {"interval": 7200}, {"cron": "5 4 * * *"}, {"starts_at": datetime(2090, 1, 1, tzinfo=UTC)},
        {"ends_at": datetime(2001, 1, 1, tzinfo=UTC)},
    ],
)  # fmt: skip
def test_a_new_rule_is_due_at_its_own_times(book: Book, change: dict[str, Any]) -> None:
    row = make(book, interval=3600)
    after = changed(book, row, **change)
    assert after.next_at != row.next_at
    assert after.next_at == duetimes.next_after(after, now(book))


def test_another_zone_moves_the_next_time(book: Book) -> None:
    row = make(book, cron="30 12 * * *", timezone="UTC")
    after = changed(book, row, timezone="Asia/Kathmandu")
    assert after.next_at
    assert (after.next_at.hour, after.next_at.minute) == (6, 45)


def test_a_change_of_something_else_leaves_the_next_time_alone(book: Book) -> None:
    row = make(book)
    was = make_due(book, row, ago=600)
    after = changed(book, row, kwargs={"right": 2}, name="other", missed="all", queue="q")
    assert after.next_at == was
    assert (after.kwargs, after.name, after.missed, after.queue) == (
        {"right": 2}, "other", "all", "q",
    )  # fmt: skip


def test_a_cron_takes_the_place_of_an_interval_and_back(book: Book) -> None:
    row = changed(book, make(book, interval=60), cron="@daily")
    assert (row.cron, row.interval) == ("@daily", None)
    row = changed(book, row, interval=5)
    assert (row.cron, row.interval) == (None, 5)
    for both_or_none, field in (({"interval": None}, "cron"), ({"cron": "@daily"}, "interval")):
        with pytest.raises(Invalid) as refused:
            changed(book, row, **{"interval": 5} | both_or_none)
        assert refused.value.field == field


def test_changes_of_many_at_once_all_hold(book: Book) -> None:
    row = make(book, cron="0 12 * * *", timezone="UTC")
    changes: list[dict[str, Any]] = [
        {"cron": "0 6 * * *"}, {"timezone": "Asia/Tokyo"}, {"queue": "q"}, {"missed": "all"},
    ]  # fmt: skip
    done = at_once([partial(changed, book, row, **change) for change in changes])
    assert not [error for error in done if isinstance(error, Exception)]
    after: Schedule = book(schedules.get, row.id)
    assert (after.queue, after.missed) == ("q", "all")
    assert after.next_at == duetimes.next_after(after, now(book))
    assert (after.cron, after.timezone) == ("0 6 * * *", "Asia/Tokyo")


def test_a_pause_lets_what_passes_go(book: Book) -> None:
    row = make(book, missed="all")
    assert book(schedules.pause, row.id).next_at is None
    book.set(row, paused=True, next_at=None, created_at=now(book) - timedelta(hours=1))
    after = book(schedules.resume, row.id)
    assert after.next_at
    assert now(book) < after.next_at <= now(book) + timedelta(seconds=60)


def test_what_is_done_twice_is_done(book: Book) -> None:
    row = make(book)
    for _ in range(2):
        assert book(schedules.pause, row.id).paused
    first, second = (book(schedules.resume, row.id) for _ in range(2))
    assert first.next_at == second.next_at == row.next_at


def test_to_resume_what_is_not_paused_skips_no_due_time(book: Book) -> None:
    row = make(book)
    overdue = make_due(book, row, ago=600)
    assert book(schedules.resume, row.id).next_at == overdue


def test_a_changed_rule_stays_paused(book: Book) -> None:
    row = make(book)
    book(schedules.pause, row.id)
    after = changed(book, row, interval=5)
    assert (after.paused, after.next_at) == (True, None)


def test_a_run_by_hand_names_its_schedule_and_takes_no_due_time(book: Book) -> None:
    row = make(book, queue="q", kwargs={"right": 2})
    book(schedules.pause, row.id)
    done = [book(schedules.run_now, row.id) for _ in range(3)]
    job = book.job(done[0].id)
    assert (job.schedule_id, job.eta, job.queue, job.kwargs) == (row.id, None, "q", {"right": 2})
    assert book.count() == 3


def test_a_run_by_hand_is_refused_by_a_full_queue(book: Book) -> None:
    book.app.config["MAX_QUEUE_DEPTH"] = 1
    row = make(book)
    book(schedules.run_now, row.id)
    with pytest.raises(Full):
        book(schedules.run_now, row.id)
    assert book.count() == 1


def test_its_newest_jobs_are_those_by_the_clock_and_by_hand(book: Book) -> None:
    row, other = make(book), make(book, "other")
    book(schedules.run_now, other.id)
    at = now(book).replace(microsecond=0)
    wanted = []
    for minute in range(4):
        wanted.append(book(schedules.submit, row, at + timedelta(minutes=minute)).id)
        wanted.append(book(schedules.run_now, row.id).id)
    assert [job.id for job in book(schedules.last_jobs, row.id, 6)] == wanted[:1:-1]


def test_the_jobs_of_a_deleted_schedule_stay(book: Book) -> None:
    row = make(book)
    job = book(schedules.run_now, row.id)
    book(schedules.delete, row.id)
    assert book.job(job.id).schedule_id == row.id
    for verb in (schedules.get, schedules.delete, schedules.pause, schedules.run_now):
        with pytest.raises(NotFound):
            book(verb, row.id)


def test_a_schedule_of_settings_is_paused_and_run_but_not_changed(book: Book) -> None:
    row = adopt(book, given=60)["given"]
    book(schedules.run_now, row.id)
    book(schedules.pause, row.id)
    assert adopt(book, given=120)["given"].next_at is None
    assert book(schedules.resume, row.id).next_at
    with pytest.raises(Conflict, match="CELERY_BEAT_SCHEDULE"):
        changed(book, row, interval=5)
    with pytest.raises(Conflict, match="CELERY_BEAT_SCHEDULE"):
        book(schedules.delete, row.id)


def test_times_to_come_tell_which_a_clock_change_moves(book: Book) -> None:
    starts = datetime(2094, 3, 26, tzinfo=UTC)
    row = make(book, cron="30 2 * * *", timezone="Europe/Berlin", starts_at=starts)
    told = book(schedules.upcoming, row.id, 4)
    assert [moved for _, moved in told] == [False, False, True, False]
    assert told[2][0] == datetime(2094, 3, 28, 1, tzinfo=UTC)
