"""The workers that are online, and what each runs: told apart by their lives, not their names."""

from quart_app import attempts, nodes, workers
from quart_app.models import Job
from tests.book import ADD, Book

INFO = {"hostname": "w@here", "queues": ["celery"]}


def running(book: Book, holder: str | None, worker: str = "w@here") -> Job:
    job = book(attempts.claim, book.submit().id, ADD, worker, 60.0, holder=holder)
    assert job
    return job


def shown(book: Book) -> dict[str, list[str]]:
    """The jobs of each worker, by the boot of its node."""
    found = book(workers.online)
    return {worker.node.boot: [job.id for job in worker.jobs] for worker in found}


def test_of_two_with_one_name_each_has_its_own_jobs(book: Book) -> None:
    for boot in ("one", "two"):
        book(nodes.seen, f"w@here:{boot}", "worker", boot, INFO)
    first, second = running(book, "one/11"), running(book, "two/12")
    assert shown(book) == {"one": [first.id], "two": [second.id]}


def test_what_an_earlier_life_held_is_not_shown_as_its_own(book: Book) -> None:
    book(nodes.seen, "w@here:1", "worker", "new", INFO)
    running(book, "old/11")
    assert shown(book) == {"new": []}


def test_a_job_without_a_holder_is_matched_by_the_workers_name(book: Book) -> None:
    book(nodes.seen, "w@here:1", "worker", "new", INFO)
    job = running(book, None)
    running(book, None, "x@there")
    assert shown(book) == {"new": [job.id]}


def test_the_process_that_runs_a_job_is_told(book: Book) -> None:
    book(nodes.seen, "w@here:1", "worker", "new", INFO)
    running(book, "new/4711")
    running(book, None)
    (worker,) = book(workers.online)
    assert [workers.pid_of(job) for job in worker.jobs] == [4711, None]
