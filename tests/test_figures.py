"""The figures that operators watch, told by the tables."""

from datetime import timedelta
from typing import Any

import pytest

from quart_app import attempts, figures, nodes
from quart_app.figures import Harvest
from quart_app.models import Job, JobState, Schedule
from tests.book import ADD, Book

RULE = {"task": ADD, "interval": 60.0, "timezone": "UTC", "source": "api"}


def ended(book: Book) -> Job:
    job = book.submit()
    book(attempts.claim, job.id, ADD, "w", 60.0)
    book(attempts.succeed, job.id, 1, None)
    return book.job(job.id)


def ids(found: list[Any]) -> list[str]:
    return [job.id for job in found]


def test_jobs_that_have_not_ended_are_counted_by_task_and_state(book: Book) -> None:
    ended(book)
    book.submit(delay=60)
    book.submit()
    jobs = book(figures.now).jobs
    assert jobs == {(ADD, JobState.SCHEDULED): 1, (ADD, JobState.QUEUED): 1}


def test_nodes_are_counted_by_kind(book: Book) -> None:
    for kind in ("worker", "beat"):
        book(nodes.seen, f"a {kind}", kind, "boot", {"queues": ["celery"]})
    found = book(figures.now)
    assert (found.nodes, found.listeners) == ({"worker": 1, "beat": 1}, {"celery": 1})


def test_a_worker_that_gets_no_messages_is_counted(book: Book) -> None:
    for name, seconds in (("fed", 2), ("starved", 9)):
        info = {"queues": ["celery"], "starved": seconds}
        book(nodes.seen, name, "worker", "boot", info)
    assert book(figures.now).workers_starved == 1


def test_what_workers_refused_is_counted(book: Book) -> None:
    for name, info in (("one", {"refused": 3}), ("other", {})):
        book(nodes.seen, name, "worker", "boot", {"queues": []} | info)
    assert book(figures.now).messages_refused == {"one": 3, "other": 0}


@pytest.mark.parametrize(("seconds", "count"), [(-60, 1), (60, 0), (None, 0)])
def test_a_schedule_that_beat_did_not_take_up_is_late(
    book: Book, seconds: float | None, count: int
) -> None:
    at = book(figures.now).at
    next_at = None if seconds is None else at + timedelta(seconds=seconds)
    book(lambda s: s.add(Schedule(id="x", name="x", **RULE, created_at=at, next_at=next_at)))
    assert book(figures.now).schedules_late == count
    book(
        lambda s: s.add(Schedule(id="y", name="y", **RULE, created_at=at, next_at=at, paused=True))
    )
    assert book(figures.now).schedules_late == count


def test_the_relay_is_late_with_what_is_due_and_not_brought_on(book: Book) -> None:
    job = book.submit(delay=60)
    assert book(figures.now).relay_lag(10) == 0
    book.set(job, available_at=job.accepted_at - timedelta(seconds=30))
    assert 30 <= book(figures.now).relay_lag(10) < 60


def test_the_relay_is_late_with_what_was_not_published_while_there_is_room(book: Book) -> None:
    rung, waits = book.submit(), book.submit()
    book.set(rung, published_at=rung.accepted_at)
    book.set(waits, available_at=waits.accepted_at - timedelta(seconds=30))
    found = book(figures.now)
    assert 30 <= found.relay_lag(2) < 60
    assert found.relay_lag(1) == 0


def test_a_harvest_gathers_what_ended_since_it_was_made_and_each_once(book: Book) -> None:
    ended(book)
    harvest = Harvest()
    jobs = [ended(book), ended(book)]
    assert ids(book(harvest.take)) == [job.id for job in jobs]
    assert book(harvest.take) == []
    last = ended(book)
    assert ids(book(harvest.take)) == [last.id]


def test_a_harvest_gathers_what_was_committed_late(book: Book) -> None:
    harvest = Harvest()
    first, late = ended(book), book.submit()
    assert ids(book(harvest.take)) == [first.id]
    book.set(late, finished_at=first.finished_at, state=JobState.FAILED)
    assert ids(book(harvest.take)) == [late.id]


def test_a_job_that_ended_again_is_gathered_again(book: Book) -> None:
    harvest, job = Harvest(), ended(book)
    (first,) = book(harvest.take)
    book.set(job, finished_at=first.finished_at + timedelta(milliseconds=1))
    assert ids(book(harvest.take)) == [job.id]


def test_a_harvest_of_very_many_goes_on_where_it_stopped(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    harvest, jobs = Harvest(), [ended(book) for _ in range(5)]
    monkeypatch.setattr(figures, "_MOST_ENDED", 2)
    monkeypatch.setattr(figures, "_OVERLAP", timedelta(0))
    found = [job_id for _ in range(5) for job_id in ids(book(harvest.take))]
    assert found == [job.id for job in jobs]
