"""Attempts: one claims, the newest alone is heard, and what it says is numbered without a gap."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy.orm import Session

from quart_app import attempts, jobs
from quart_app.attempts import Fenced, Line
from quart_app.models import Event, Job, JobState
from tests.book import ADD, Book, at_once


def claim(book: Book, job: Job, worker: str = "w", lease: float = 9) -> Job | None:
    return book(attempts.claim, job.id, ADD, worker, lease)


def running(book: Book) -> Job:
    job = book.submit()
    assert claim(book, job)
    return book.job(job.id)


def line(text: str) -> Line:
    return Line(datetime.now(UTC), "info", text)


def submit_and_succeed(session: Session, job_id: str, attempt: int) -> None:
    jobs.submit(session, ADD, args=[1])
    attempts.succeed(session, job_id, attempt, None)


def seqs(book: Book, job: Job) -> list[int]:
    return [event["seq"] for event in book.events(job.id)]


def test_of_sixteen_workers_one_claims_the_job(book: Book) -> None:
    job = book.submit()
    claims = at_once([partial(claim, book, job, f"w{n}") for n in range(16)])
    assert not [error for error in claims if isinstance(error, Exception)]
    (mine,) = [claim for claim in claims if isinstance(claim, Job)]
    assert (mine.attempt, mine.state) == (1, JobState.RUNNING)
    assert book.job(job.id).worker == f"w{claims.index(mine)}"
    assert seqs(book, job) == [1, 2]


def test_a_claim_holds_a_lease_by_the_databases_clock(book: Book) -> None:
    job = running(book)
    assert job.lease_until
    assert job.started_at
    held = job.lease_until - job.started_at
    assert timedelta(seconds=8.9) < held < timedelta(seconds=9.1)


def test_what_is_claimed_was_with_the_broker(book: Book) -> None:
    unnoted = running(book)
    assert unnoted.accepted_at <= unnoted.published_at <= unnoted.started_at  # type: ignore[operator]
    noted = book.submit()
    book.set(noted, published_at=noted.accepted_at)
    assert claim(book, noted)
    assert book.job(noted.id).published_at == noted.accepted_at


@pytest.mark.parametrize(
    "columns",
    [
        {"state": JobState.RUNNING},
        {"state": JobState.SUCCEEDED},
        {"state": JobState.RETRYING},
        {"cancel_requested": True},
        {"available_at": datetime(2100, 1, 1, tzinfo=UTC)},
        {"task": "tests.sample_tasks.fail"},
    ],
)
def test_what_is_not_there_to_be_taken_is_not_claimed(book: Book, columns: dict[str, Any]) -> None:
    job = book.submit()
    book.set(job, **columns)
    assert claim(book, job) is None
    assert (book.job(job.id).attempt, seqs(book, job)) == (0, [1])


def test_keeping_extends_the_lease_and_stores_what_was_said(book: Book) -> None:
    job = running(book)
    snapshot = {"current": 1, "total": 2, "message": "half"}
    lines = [line("one"), line("two")]
    asked = book(attempts.keep, job.id, 1, 60, progress=snapshot, lines=lines)
    kept = book.job(job.id)
    assert (asked, kept.progress, kept.last_seq) == (False, snapshot, 4)
    assert kept.lease_until
    assert job.lease_until
    assert kept.lease_until - job.lease_until > timedelta(seconds=50)
    assert [event["message"] for event in book.events(job.id)[2:]] == ["one", "two"]


def test_keeping_tells_that_the_job_is_to_stop(book: Book) -> None:
    job = running(book)
    book(jobs.cancel, job.id)
    assert book(attempts.keep, job.id, 1, 9) is True


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda s, i, n: attempts.succeed(s, i, n, {"a": "é😀"}), JobState.SUCCEEDED),
        (lambda s, i, n: attempts.fail(s, i, n, "no 世界"), JobState.FAILED),
        (attempts.cancel, JobState.CANCELLED),
        (lambda s, i, n: attempts.postpone(s, i, n, "later", 30), JobState.RETRYING),
    ],
)
def test_an_attempt_ends_once_and_a_stale_one_never(book: Book, end: Any, state: JobState) -> None:
    job = running(book)
    for attempt in (0, 2):
        with pytest.raises(Fenced):
            book(end, job.id, attempt)
    book(end, job.id, 1)
    with pytest.raises(Fenced):
        book(end, job.id, 1)
    ended = book.job(job.id)
    assert (ended.state, ended.lease_until, seqs(book, job)) == (state, None, [1, 2, 3])


def test_a_stale_attempt_keeps_nothing_and_says_nothing(book: Book) -> None:
    job = running(book)
    book.set(job, attempt=2)
    with pytest.raises(Fenced):
        book(attempts.keep, job.id, 1, 60, progress={"current": 9}, lines=[line("late")])
    assert (book.job(job.id).progress, book.count(Event)) == (None, 2)


def test_what_a_stale_attempt_wrote_beside_it_is_undone(book: Book) -> None:
    job = running(book)
    with pytest.raises(Fenced):
        book(submit_and_succeed, job.id, 7)
    assert book.count(Job) == 1


def test_a_postponed_job_waits_and_its_doorbell_is_to_be_rung_anew(book: Book) -> None:
    job = running(book)
    book.set(job, published_at=job.accepted_at, rings=3)
    book(attempts.postpone, job.id, 1, "no answer", 30)
    later = book.job(job.id)
    assert (later.published_at, later.rings, later.error) == (None, 0, "no answer")
    assert timedelta(seconds=25) < later.available_at - job.available_at < timedelta(seconds=40)
    assert claim(book, later) is None


def test_the_last_event_carries_how_it_ended(book: Book) -> None:
    job = running(book)
    book(attempts.succeed, job.id, 1, [1.5, None, {"世": "😀"}])
    last = book.events(job.id)[-1]
    assert (last["state"], last["result"]) == ("succeeded", [1.5, None, {"世": "😀"}])
    assert book.job(job.id).result == [1.5, None, {"世": "😀"}]


def test_events_have_no_gap_and_no_repeat_while_all_speak_at_once(book: Book) -> None:
    job = running(book)
    speak = [partial(book, attempts.keep, job.id, 1, 9, lines=[line("a")] * n) for n in range(1, 9)]
    said = at_once([*speak, partial(book, attempts.postpone, job.id, 1, "later", 0)])
    lines = sum(n for n, done in enumerate(said[:8], 1) if done is False)
    assert {type(done) for done in said} <= {bool, type(None), Fenced}
    assert seqs(book, job) == list(range(1, 4 + lines))
    assert book.job(job.id).last_seq == 3 + lines
