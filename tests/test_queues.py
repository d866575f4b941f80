"""What waits in each queue, who listens, and how fast jobs come and go, told by the tables."""

from datetime import timedelta
from uuid import uuid4

import pytest

from quart_app import jobs, nodes, queues
from quart_app.models import JobState
from quart_app.queues import Queue
from tests.book import ADD, Book

INFO = {"hostname": "celery@here", "queues": ["celery", "mail"]}


def shown(book: Book, name: str) -> Queue:
    return {queue.name: queue for queue in book(queues.everyone)}[name]


def counts(queue: Queue) -> dict[str, int]:
    return {state.value: line.count for state, line in queue.lines.items() if line.count}


def test_those_of_the_settings_are_there_though_nothing_waits(book: Book) -> None:
    book.app.config["CELERY_TASK_QUEUES"] = {"b": {}, "a": {}}
    found = book(queues.everyone)
    assert [queue.name for queue in found] == ["a", "b"]
    assert (counts(found[0]), found[0].oldest, found[0].workers) == ({}, None, 0)


def test_those_that_workers_listen_to_count_their_listeners(book: Book) -> None:
    for number in range(2):
        book(nodes.seen, f"celery@here:{number}", "worker", "boot", INFO)
    assert {queue.name: queue.workers for queue in book(queues.everyone)} == {
        "celery": 2,
        "mail": 2,
    }


def test_a_worker_that_fell_silent_listens_no_more(book: Book) -> None:
    book(nodes.seen, "celery@here:1", "worker", "boot", INFO)
    node = book(nodes.online, "worker")[0]
    book.set(node, seen_at=node.seen_at - timedelta(seconds=nodes.GONE_AFTER + 1))
    assert [queue.name for queue in book(queues.everyone)] == ["celery"]
    assert shown(book, "celery").workers == 0


def test_jobs_are_counted_by_what_they_wait_for(book: Book) -> None:
    for state in JobState:
        book.set(book.submit(queue="mail"), state=state)
    book.submit(queue="mail", delay=60)
    live = {"scheduled": 2, "queued": 1, "running": 1, "retrying": 1}
    assert counts(shown(book, "mail")) == live


def test_the_oldest_is_the_job_that_has_waited_longest(book: Book) -> None:
    _, second, _ = (book.submit(queue="mail") for _ in range(3))
    waited = second.available_at - timedelta(seconds=90)
    book.set(second, available_at=waited, accepted_at=waited)
    oldest = shown(book, "mail").oldest
    assert oldest
    assert (oldest.id, oldest.accepted_at) == (second.id, waited)
    assert 90 <= oldest.age < 120


def test_what_was_never_published_is_told_from_what_was(book: Book) -> None:
    waits, rung = book.submit(), book.submit()
    book.set(rung, published_at=rung.accepted_at)
    line = book(queues.lines)["celery"][JobState.QUEUED]
    assert (line.count, line.published) == (2, 1)
    assert line.unpublished_since == waits.available_at


@pytest.mark.parametrize("minutes", [0, queues.MINUTES + 1])
def test_rates_are_of_the_last_minutes(book: Book, minutes: int) -> None:
    at = timedelta(minutes=minutes)
    for job in [book.submit(queue="mail") for _ in range(10)]:
        accepted = job.accepted_at - at
        book.set(job, accepted_at=accepted, finished_at=accepted, state=JobState.SUCCEEDED)
    book.submit(queue="mail", delay=60)
    found = shown(book, "mail")
    came, went = (0.2, 0.0) if minutes else (11 / queues.MINUTES, 10 / queues.MINUTES)
    assert (found.in_per_minute, found.out_per_minute) == (came, went)


def test_the_jobs_of_other_celery_clients_count_as_they_come(book: Book) -> None:
    assert book(jobs.adopt, f"f{str(uuid4())[1:]}", jobs.NewJob(task=ADD, args=[1]))
    assert shown(book, "celery").in_per_minute == 1 / queues.MINUTES
