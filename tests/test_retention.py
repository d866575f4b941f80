"""Retention: what ended long ago goes with all that belongs to it; the rest stays."""

from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from quart_app import audit, db, jobs, retention
from quart_app.celeryext import in_app_context
from quart_app.models import AuditEntry, Event, Job, JobState, Message, Node, Repeat
from tests.book import Book
from tests.ledger import Ledger
from tests.real import until

DAY = 86_400


def ended(book: Book, days: float, state: JobState = JobState.SUCCEEDED, **columns: Any) -> Job:
    job = book.submit()
    past = db.now(-days * DAY)
    book.set(job, state=state, finished_at=past, available_at=past, **columns)
    return job


def left(book: Book) -> set[str]:
    return set(book(lambda s: s.scalars(text("SELECT id FROM jobs")).all()))


def test_what_ended_long_ago_goes_with_its_events(book: Book) -> None:
    ended(book, 8)
    young, other = ended(book, 6), ended(book, 8, JobState.FAILED)
    assert book(retention.prune, JobState.SUCCEEDED, 7 * DAY, 10) == 1
    assert left(book) == {young.id, other.id}
    assert book.count(Event) == 2


def test_what_has_not_ended_stays_however_old_it_is(book: Book) -> None:
    for state in (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING, JobState.RETRYING):
        ended(book, 1000, state)
    for state, age in retention.ages(book.app.config).items():
        assert book(retention.prune, state, age, 10) == 0
    assert book.count() == 4


def test_what_was_cancelled_before_its_time_goes_as_soon_as_the_rest(book: Book) -> None:
    book(jobs.cancel, book.submit(delay=3600).id)
    until(lambda: book(retention.prune, JobState.CANCELLED, 0.0, 10))
    assert book.count() == 0


def test_no_more_than_a_batch_goes_at_once(book: Book) -> None:
    for _ in range(5):
        ended(book, 8)
    assert [book(retention.prune, JobState.SUCCEEDED, 7 * DAY, 2) for _ in range(4)] == [2, 2, 1, 0]


def test_jobs_with_many_events_go_a_few_at_a_time_and_one_at_least(book: Book) -> None:
    for days, events in ((12, 5_000), (11, 5_000), (10, 1), (9, 20_000), (8, 1)):
        ended(book, days, last_seq=events)
    verb = (retention.prune, JobState.SUCCEEDED, 7 * DAY, 500)
    assert [book(*verb) for _ in range(5)] == [2, 1, 1, 1, 0]


def test_all_jobs_go_in_one_run_however_few_at_a_time(book: Book) -> None:
    for days in (10, 9, 8):
        ended(book, days, last_seq=10_000)
    assert run_prune(book)["succeeded"] == 3


def test_a_kind_that_cannot_be_pruned_keeps_no_other_from_it(book: Book) -> None:
    book(lambda s: s.add(_node(2)))
    book.app.config["KEEP_AUDIT"] = "a year"
    with pytest.raises(RuntimeError, match="could not prune: audit;"):
        run_prune(book)
    assert book.count(Node) == 0


def run_prune(book: Book) -> dict[str, int]:
    """As beat has a worker do it."""
    prune = book.app.extensions["celery"].tasks["tasks.scheduler.prune"]
    gone: dict[str, int] = in_app_context(book.app, prune)
    return gone


def test_each_state_is_kept_as_long_as_settings_say(book: Book) -> None:
    book.app.config.update(KEEP_SUCCEEDED=1.5, KEEP_FAILED=2.0, KEEP_CANCELLED=3.0)
    assert retention.ages(book.app.config) == {
        JobState.SUCCEEDED: 1.5 * DAY, JobState.FAILED: 2 * DAY, JobState.CANCELLED: 3 * DAY
    }  # fmt: skip


def test_the_audit_log_is_kept_for_its_days(book: Book) -> None:
    for days in (400, 366, 364):
        book(audit.record, "token.create", str(days))
        newest = AuditEntry.target == str(days)
        book(lambda s, old=days, it=newest: s.execute(
            update(AuditEntry).where(it).values(at=db.now(-old * DAY))
        ))  # fmt: skip
    assert [book(retention.prune_audit, 365.0, 1) for _ in range(3)] == [1, 1, 0]
    assert [entry.target for entry in book(audit.search, exact={})] == ["364"]


def test_a_key_of_a_job_that_was_there_goes_when_it_stands_for_nothing_more(book: Book) -> None:
    job = book.submit()
    for hours in (23, 25, 26):
        key = {"idempotency_key": f"{hours:0<64}", "idempotency_body": "0" * 64}
        at = db.now(-hours * 3600)
        book(lambda s, key=key, at=at: s.execute(
            insert(Repeat).values(job_id=job.id, accepted_at=at, **key)
        ))  # fmt: skip
    assert [book(retention.prune_repeats, 1) for _ in range(3)] == [1, 1, 0]
    (kept,) = book(lambda s: s.scalars(select(Repeat.idempotency_key)).all())
    assert kept.startswith("23")


def test_beat_has_a_worker_prune(ledger: Ledger, worker: Any) -> None:
    old = ledger.submit("add", 1)
    ledger.ended(old)
    ledger.change(old, finished_at=db.now(-31 * DAY), available_at=db.now(-31 * DAY))
    ledger.within(lambda s: s.add(_message("sent", 31)))
    ledger.within(lambda s: s.add(_message("unknown", 31)))
    ledger.within(lambda s: s.add(_node(2)))
    done = ledger.ended(ledger.submit("tasks.scheduler.prune"))
    kept = {"failed": 0, "cancelled": 0, "audit": 0, "repeats": 0}
    expected = {"succeeded": 1, "messages": 1, "nodes": 1} | kept
    assert done.result == expected
    assert [job.id for job in ledger.jobs()] == [done.id]


def test_messages_go_by_the_time_that_they_were_for(book: Book) -> None:
    book(lambda s: s.add(_message("failed", 31)))
    book(lambda s: s.add(_message("sent", 31, send_at=db.now(-DAY))))
    assert book(retention.prune_messages, 30 * DAY, 10) == 1
    assert book(lambda s: s.scalars(select(Message.state)).all()) == ["sent"]


def _message(state: str, days: float, **columns: Any) -> Message:
    made = db.now(-days * DAY)
    return Message(id=f"{state:0<36}", to="+1", text="", state=state, created_at=made, **columns)


def _node(days: float) -> Node:
    at = db.now(-days * DAY)
    return Node(name="gone", kind="worker", boot="b", info={}, started_at=at, seen_at=at)
