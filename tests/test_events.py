"""Events: frames in order, announced when they are committed and not before."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from quart_app import commits, events, jobs
from quart_app.models import JobState
from tests.book import ADD, Book


def announced(book: Book) -> list[dict[str, Any]]:
    """Where the frames of coming commits go."""
    frames: list[dict[str, Any]] = []
    book.database.after_commit.append(lambda s: frames.extend(commits.taken(s, "frames")))
    return frames


def test_frames_are_announced_after_the_commit_and_in_order(book: Book) -> None:
    frames = announced(book)
    with book.transaction() as call:
        job = call(jobs.submit, ADD, args=[1])
        call(jobs.cancel, job.id)
        assert frames == []
    assert frames == book.events(job.id)
    assert [frame["state"] for frame in frames] == ["queued", "cancelled"]
    book.database.after_commit.clear()


def test_nothing_is_announced_of_what_was_rolled_back(book: Book) -> None:
    frames = announced(book)
    with suppress(ZeroDivisionError), book.transaction() as call:
        call(jobs.submit, ADD, args=[1])
        raise ZeroDivisionError
    assert frames == []
    book.database.after_commit.clear()


def test_a_cursor_gives_what_came_after_it(book: Book) -> None:
    job = book.submit()
    book(jobs.cancel, job.id)
    book(jobs.retry, job.id)
    after = [frame["seq"] for frame in book(events.since, job.id, 1)]
    assert after == [2, 3]
    assert [frame["seq"] for frame in book(events.since, job.id, 0, 2)] == [1, 2]
    assert book(events.since, job.id, 3) == book(events.since, "no-such") == []


def test_only_a_final_state_is_the_last(book: Book) -> None:
    job = book.submit()
    book(jobs.cancel, job.id)
    assert [events.is_last(frame) for frame in book.events(job.id)] == [False, True]
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == events.TERMINAL


def test_a_frame_names_its_job_and_its_time_in_utc(book: Book) -> None:
    job = book.submit()
    (frame,) = book.events(job.id)
    assert (frame["job"], frame["type"], frame["attempt"]) == (job.id, "state", 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", frame["at"])
    assert frame["at"] == events.timestamp(job.accepted_at)


def test_times_as_texts_sort_as_times_do() -> None:
    start = datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))
    times = [start, start + timedelta(microseconds=1), start + timedelta(seconds=1)]
    texts = [events.timestamp(time) for time in times]
    assert texts[0] == "2026-01-01T00:00:00.000000Z"
    assert texts == sorted(texts)
    assert events.timestamp(start.astimezone(UTC)) == texts[0]


def test_progress_has_no_number_of_its_own() -> None:
    frame = events.progress_frame("id", {"current": 1, "total": 2, "message": ""})
    assert "seq" not in frame
    assert (frame["job"], frame["type"], frame["current"]) == ("id", "progress", 1)


def test_events_go_with_their_job(book: Book) -> None:
    job = book.submit()
    book(lambda session: session.delete(session.merge(job)))
    assert book.events(job.id) == []
