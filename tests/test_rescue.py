"""Rescue: what a lost worker held is given back once, ended when it is to blame, and fenced."""

from functools import partial
from typing import Any

import pytest

from quart_app import attempts, db, jobs, rescue
from quart_app.models import Job, JobState
from tests.book import ADD, Book, at_once

BOOT = "018f0000-0000-7000-8000-000000000001"


def running(book: Book, pid: int = 1, boot: str = BOOT, **columns: Any) -> Job:
    """A job in the hands of a process of node `boot`."""
    job = book.submit()
    if columns:
        book.set(job, **columns)
    claimed = book(attempts.claim, job.id, ADD, "w@here", 60, holder=f"{boot}/{pid}")
    assert claimed
    return claimed


def states(book: Book, job: Job) -> list[str]:
    return [event["state"] for event in book.events(job.id)]


def test_what_an_ended_node_ran_is_queued_again_once_however_many_see_to_it(book: Book) -> None:
    lost = [running(book, pid) for pid in range(1, 6)]
    other = running(book, boot=BOOT.replace("1", "2"))
    at_once([lambda: book(rescue.node_ended, BOOT)] * 8)
    for job in lost:
        assert states(book, job) == ["queued", "running", "queued"]
        assert book.job(job.id).losses == 1
    assert states(book, other) == ["queued", "running"]


def test_a_job_whose_process_died_is_queued_again(book: Book) -> None:
    job = running(book, pid=7)
    book(rescue.process_died, job.id, f"{BOOT}/8")
    assert book.job(job.id).state is JobState.RUNNING
    book(rescue.process_died, job.id, f"{BOOT}/7")
    assert states(book, job)[-1] == "queued"
    assert book.job(job.id).error == "its process died under it, on worker w@here"


def test_a_job_that_is_silent_for_its_lease_is_queued_again(book: Book) -> None:
    job, alive = running(book), running(book)
    book.set(job, lease_until=db.now(-1))
    assert book(rescue.silent, 10) == [job.id]
    for job_id in (job.id, alive.id):
        book(rescue.give_back, job_id)
    assert [book.job(one.id).state for one in (job, alive)] == ["queued", "running"]


def test_a_job_that_was_lost_keeps_its_turn(book: Book) -> None:
    job = running(book, available_at=db.now(-60))
    due = book.job(job.id).available_at
    book(rescue.process_died, job.id, f"{BOOT}/1")
    found = book.job(job.id)
    assert (found.state, found.available_at, found.published_at) == (JobState.QUEUED, due, None)


@pytest.mark.parametrize(("attempts_before", "most"), [(0, 1), (2, 3), (4, 5)])
def test_a_job_that_keeps_killing_its_process_fails_after_its_attempts(
    book: Book, attempts_before: int, most: int
) -> None:
    losses = max(rescue.MOST_DEATHS - 1, attempts_before)
    job = running(book, attempt=attempts_before, max_attempts=most, losses=losses, live_key="k")
    book(rescue.process_died, job.id, f"{BOOT}/1")
    found = book.job(job.id)
    assert (found.state, found.live_key) == (JobState.FAILED, None)
    assert found.error == (
        f"its process died under it, on worker w@here, and it had been lost {losses} times before"
    )
    assert found.finished_at


def test_a_job_that_was_lost_now_and_then_runs_again(book: Book) -> None:
    once = running(book, losses=1)
    with_attempts_left = running(book, losses=9, max_attempts=20)
    innocent = running(book, losses=rescue.MOST_LOSSES - 2)
    book(rescue.process_died, once.id, f"{BOOT}/1")
    book(rescue.process_died, with_attempts_left.id, f"{BOOT}/1")
    book(rescue.node_ended, BOOT)
    found = {book.job(job.id).state for job in (once, with_attempts_left, innocent)}
    assert found == {JobState.QUEUED}


def test_a_node_that_is_lost_under_one_job_again_and_again_is_lost_by_it(book: Book) -> None:
    job = running(book, losses=rescue.MOST_LOSSES - 1)
    book(rescue.node_ended, BOOT)
    assert book.job(job.id).state is JobState.FAILED


def test_what_must_not_be_started_again_fails(book: Book) -> None:
    job = running(book, on_lost="fail")
    book(rescue.node_ended, BOOT)
    found = book.job(job.id)
    assert (found.state, found.finished_at is not None) == (JobState.FAILED, True)
    assert found.error == (
        "worker w@here ended under it; its task says that it is not to be run again"
    )


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(book: Book) -> None:
    job = running(book)
    book(jobs.cancel, job.id)
    book(rescue.process_died, job.id, f"{BOOT}/1")
    assert book.job(job.id).state is JobState.CANCELLED


def test_a_job_broken_off_by_a_stop_is_no_loss(book: Book) -> None:
    job = running(book, losses=rescue.MOST_LOSSES)
    book(rescue.stopped, job.id, job.attempt)
    found = book.job(job.id)
    assert (found.state, found.losses) == (JobState.QUEUED, rescue.MOST_LOSSES)


def test_who_lost_its_job_can_record_nothing(book: Book) -> None:
    job = running(book)
    book(rescue.node_ended, BOOT)
    verbs: list[Any] = [
        partial(attempts.succeed, result=1), partial(attempts.fail, error="late"),
        partial(attempts.keep, lease=9.0), partial(attempts.postpone, error="late", wait=1.0),
    ]  # fmt: skip
    for verb in verbs:
        with pytest.raises(attempts.Fenced):
            book(verb, job.id, job.attempt)
    book(rescue.stopped, job.id, job.attempt)
    assert states(book, job) == ["queued", "running", "queued"]
