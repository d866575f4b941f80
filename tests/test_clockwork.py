"""What has become due makes one job for each due time, however many beats look."""

from datetime import datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import delete, select, update

from quart_app import clockwork, schedules
from quart_app.models import Job, Schedule
from tests.book import ADD, Book, at_once
from tests.test_schedules import adopt, make_due


def due_times(book: Book) -> list[datetime | None]:
    return list(book(lambda session: session.scalars(select(Job.eta).order_by(Job.eta)).all()))


def test_eight_beats_at_once_make_one_job_for_each_due_time(book: Book) -> None:
    rows = adopt(book, **{f"s{number}": 3600 for number in range(6)}).values()
    expected = sorted(make_due(book, row, ago=number) for number, row in enumerate(rows))
    done = at_once([partial(book, clockwork.tick)] * 8)
    assert not [error for error in done if isinstance(error, Exception)]
    assert due_times(book) == expected
    book(clockwork.tick)
    assert book.count() == 6


def test_a_due_schedule_makes_a_job_that_names_it(book: Book) -> None:
    entry = {"task": ADD, "schedule": 60, "kwargs": {"left": 4}, "options": {"queue": "q"}}
    row = adopt(book, named=entry)["named"]
    at = make_due(book, row, ago=1)
    assert book(clockwork.tick) == 0
    job = book(lambda session: session.scalars(select(Job)).one())
    assert (job.schedule_id, job.eta, job.queue, job.kwargs) == (row.id, at, "q", {"left": 4})
    assert 0 < book(clockwork.tick) <= 60


def made_up_for(book: Book, missed: str, ago: float, every: int = 60) -> list[float]:
    """Which due times got their jobs when no beat had run, in seconds after the first of them."""
    row = adopt(book, late=every)["late"]
    first = make_due(book, row, ago=ago, missed=missed)
    book(clockwork.tick)
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
    assert made_up_for(book, "all", ago=year + 5) == list(range(year - 99 * 60, year + 1, 60))


def test_a_paused_schedule_makes_nothing(book: Book) -> None:
    row = adopt(book, resting=60)["resting"]
    make_due(book, row, ago=5, paused=True)
    book(clockwork.tick)
    assert book.count() == 0


def test_what_was_changed_since_it_was_seen_fires_as_it_is_now(book: Book) -> None:
    at = make_due(book, adopt(book, late=60)["late"], ago=5)
    seen = book(schedules.named, "late")
    book.set(book(schedules.get, seen.id), kwargs={"right": 7}, interval=3600)
    book(clockwork._fire, seen, at + timedelta(seconds=5))
    job = book(lambda session: session.scalars(select(Job)).one())
    assert job.kwargs == {"right": 7}
    assert book(schedules.get, seen.id).next_at == at + timedelta(hours=1)


def test_what_was_paused_or_deleted_since_it_was_seen_does_not_fire(book: Book) -> None:
    for verb in (schedules.pause, schedules.delete):
        seen = book(schedules.create, "brief", ADD, args=[1], interval=60)
        seen.next_at = make_due(book, seen, ago=5)
        book(verb, seen.id)
        book(clockwork._fire, seen, seen.next_at)
        assert book.count() == 0
        book(lambda session: session.execute(delete(Schedule)))


def test_a_schedule_that_has_ended_makes_its_last_job_and_no_more(book: Book) -> None:
    row = adopt(book, ending=60)["ending"]
    at = make_due(book, row, ago=5)
    book.set(row, next_at=at, ends_at=at + timedelta(seconds=1))
    book(clockwork.tick)
    assert due_times(book) == [at]
    assert book(lambda session: session.scalars(select(Schedule.next_at)).one()) is None


def test_a_schedule_of_a_task_that_is_not_there_harms_no_other(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {"gone": {"task": "no.such", "schedule": 60}, "wrong": {"task": ADD, "schedule": 60}}
    rows = adopt(book, good=60, **entries)
    for number, row in enumerate(rows.values()):
        make_due(book, row, ago=5 - number)
    book(clockwork.tick)
    assert book.count() == 1
    said = [record.getMessage() for record in caplog.records]
    assert any("gone" in line and "no.such" in line for line in said)
    assert any("wrong" in line and "left" in line for line in said)
    assert 0 < book(clockwork.tick) <= 60


def test_a_schedule_that_raises_anything_at_all_harms_no_other(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    picky = {"task": "tests.sample_tasks.picky", "schedule": 60, "args": ["worse"]}
    rows = adopt(book, astray=60, good=60, picky=picky)
    at = make_due(book, rows["astray"], 5, cron="0 0 1 1 *", interval=None, timezone="Not/There")
    for name in ("good", "picky"):
        make_due(book, rows[name], ago=4)
    assert book(clockwork.tick) == 0
    assert [job.task for job in book(lambda s: s.scalars(select(Job)).all())] == [ADD]
    said = [record.getMessage() for record in caplog.records]
    assert "Schedule astray could not be fired, and waits a minute." in said
    assert "Schedule picky made no job." in said
    assert 0 < book(clockwork.tick) <= 60
    book.set(book(schedules.named, "astray"), timezone="UTC")
    book.app.extensions.pop("schedules_put_off")
    book(clockwork.tick)
    assert at in due_times(book)


def test_a_look_that_finds_nothing_due_waits_for_no_writer(book: Book) -> None:
    adopt(book, later=3600)
    with book.database.session() as writing:
        writing.execute(update(Schedule).values(queue="other"))
        assert book(clockwork.tick) == 60
