"""Many jobs cancelled or retried by one call: all that match, each once, in bounded steps."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from quart_app import attempts, bulk, jobs
from quart_app.bulk import CANCEL, RETRY, Mark, Tally
from quart_app.celeryext import in_app_context
from quart_app.errors import Conflict, Invalid
from quart_app.lists import Filters, Place
from quart_app.models import Job, JobState
from tests.book import ADD, Book, at_once

REPEAT = "tests.sample_tasks.repeat"
Change = Callable[..., Tally]


@pytest.fixture
def change(book: Book) -> Change:
    def change(action: bulk.Action, filters: dict[str, Any], **options: Any) -> Tally:
        call = partial(bulk.run, book.database, action, Filters(**filters), **options)
        return in_app_context(book.app, call)

    return change


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_AT_ONCE", 3)
    monkeypatch.setattr(bulk, "MOST", 7)


def counts(tally: Tally) -> tuple[int, int, int]:
    return tally.matched, tally.done, tally.refused


def in_state(book: Book, state: JobState, **options: Any) -> Job:
    job = book.submit(**options)
    book.set(job, state=state)
    return book.job(job.id)


def states(book: Book, made: list[Job]) -> list[JobState]:
    return [book.job(job.id).state for job in made]


def to_the_end(change: Change, action: bulk.Action, filters: dict[str, Any]) -> list[Tally]:
    """Calls until nothing is left, each with the cursor of the one before."""
    tallies = [change(action, filters)]
    while rest := tallies[-1].rest:
        tallies.append(change(action, filters, after=Mark.read(str(rest))))
    return tallies


def test_all_that_match_are_cancelled_and_no_other(book: Book, change: Change) -> None:
    waits = [in_state(book, state, queue="mail") for state in jobs.WAITING]
    ended = [in_state(book, state, queue="mail") for state in (JobState.FAILED, JobState.SUCCEEDED)]
    other = book.submit(queue="other")
    assert counts(change(CANCEL, {"queue": "mail"})) == (3, 3, 0)
    assert set(states(book, waits)) == {JobState.CANCELLED}
    assert states(book, [*ended, other]) == [JobState.FAILED, JobState.SUCCEEDED, JobState.QUEUED]
    assert [event["state"] for event in book.events(waits[0].id)] == ["queued", "cancelled"]


def test_running_jobs_are_asked_to_stop_once(book: Book, change: Change) -> None:
    job = book(attempts.claim, book.submit().id, ADD, "w", 60.0)
    assert job
    assert counts(change(CANCEL, {"task": ADD})) == (1, 1, 0)
    assert book.job(job.id).cancel_requested
    assert counts(change(CANCEL, {"task": ADD})) == (0, 0, 0)


def test_all_that_match_are_queued_again(book: Book, change: Change) -> None:
    failed = [in_state(book, JobState.FAILED) for _ in range(2)]
    cancelled, succeeded = in_state(book, JobState.CANCELLED), in_state(book, JobState.SUCCEEDED)
    book.set(failed[0], attempt=1, error="no", finished_at=failed[0].accepted_at)
    assert counts(change(RETRY, {"task": ADD})) == (3, 3, 0)
    assert set(states(book, [*failed, cancelled])) == {JobState.QUEUED}
    assert states(book, [succeeded]) == [JobState.SUCCEEDED]
    again = book.job(failed[0].id)
    assert (again.max_attempts, again.finished_at, again.published_at) == (2, None, None)
    assert [event["seq"] for event in book.events(again.id)] == [1, 2]


def test_of_jobs_with_one_unique_key_one_is_queued_again(book: Book, change: Change) -> None:
    old = []
    for _ in range(3):
        old.append(book.submit(unique_key="k"))
        book(jobs.cancel, old[-1].id)
    assert counts(change(RETRY, {"state": JobState.CANCELLED})) == (3, 1, 2)
    assert sorted(states(book, old)) == ["cancelled", "cancelled", "queued"]
    with pytest.raises(Conflict, match="unique_key"):
        book(jobs.retry, old[-1].id)


@pytest.mark.parametrize("action", [CANCEL, RETRY])
def test_a_dry_run_counts_and_changes_nothing(
    book: Book, change: Change, action: bulk.Action
) -> None:
    made = [in_state(book, state) for state in JobState]
    tally = change(action, {"task": ADD}, dry_run=True)
    assert counts(tally) == (len(action.states), 0, 0)
    assert tally.rest is None
    assert states(book, made) == [*JobState]


FILTERS: list[dict[str, Any]] = [
    {"state": JobState.QUEUED}, {"task": REPEAT}, {"queue": "mail"}, {"text": "needle"},
]  # fmt: skip


@pytest.mark.parametrize("filters", FILTERS)
def test_each_filter_says_which(book: Book, change: Change, filters: dict[str, Any]) -> None:
    late = book.submit(delay=60)
    sought = book.submit(REPEAT, args=["needle"], queue="mail")
    assert change(CANCEL, filters).done == 1
    assert states(book, [sought, late]) == [JobState.CANCELLED, JobState.SCHEDULED]


def test_times_say_which(book: Book, change: Change) -> None:
    first, second, third = (book.submit() for _ in range(3))
    between = {"since": second.accepted_at, "until": second.accepted_at}
    assert change(CANCEL, between).done == 1
    assert states(book, [first, second, third]) == ["queued", "cancelled", "queued"]


def test_without_a_filter_nothing_is_touched(book: Book, change: Change) -> None:
    job = book.submit()
    with pytest.raises(Invalid, match="at least one filter"):
        change(CANCEL, {})
    assert states(book, [job]) == [JobState.QUEUED]


@pytest.mark.parametrize(("action", "state"), [(CANCEL, "succeeded"), (RETRY, "queued")])
def test_a_state_that_never_allows_it_is_refused(
    change: Change, action: bulk.Action, state: str
) -> None:
    with pytest.raises(Invalid, match=r"state: .*cancelled|state: .*running"):
        change(action, {"state": JobState(state)})


def test_a_cursor_of_another_call_is_refused(change: Change) -> None:
    with pytest.raises(Invalid, match="cursor"):
        change(CANCEL, {"task": ADD}, after=Mark(JobState.FAILED))


@pytest.mark.usefixtures("small_steps")
def test_one_call_changes_so_many_and_tells_where_to_go_on(book: Book, change: Change) -> None:
    made = [in_state(book, state) for state in (*jobs.WAITING,) * 5]
    tallies = to_the_end(change, CANCEL, {"task": ADD})
    assert [tally.done for tally in tallies] == [7, 7, 1]
    assert set(states(book, made)) == {JobState.CANCELLED}


@pytest.mark.usefixtures("small_steps")
def test_a_call_without_time_leaves_all_to_the_next(
    book: Book, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = book.submit()
    monkeypatch.setattr(bulk, "PATIENCE", -1)
    assert change(CANCEL, {"task": ADD}).rest == Mark(JobState.SCHEDULED)
    monkeypatch.undo()
    assert change(CANCEL, {"task": ADD}, after=Mark(JobState.SCHEDULED)).done == 1
    assert states(book, [job]) == [JobState.CANCELLED]


@pytest.mark.usefixtures("small_steps")
def test_of_many_who_do_it_at_once_one_changes_each_job(book: Book, change: Change) -> None:
    made = [book.submit() for _ in range(30)]
    called = at_once([partial(to_the_end, change, CANCEL, {"task": ADD})] * 4)
    tallies = [tally for tallies in called if isinstance(tallies, list) for tally in tallies]
    assert not [error for error in called if isinstance(error, Exception)]
    assert sum(tally.done for tally in tallies) == 30
    assert set(states(book, made)) == {JobState.CANCELLED}
    assert {len(book.events(job.id)) for job in made} == {2}


@pytest.mark.usefixtures("small_steps")
def test_jobs_that_are_taken_meanwhile_are_asked_to_stop_or_left_alone(
    book: Book, change: Change
) -> None:
    made = [book.submit() for _ in range(24)]

    def work() -> None:
        for job in made[::2]:
            taken = book(attempts.claim, job.id, ADD, "w", 60.0)
            if taken and not book.job(job.id).cancel_requested:
                with suppress(attempts.Fenced):
                    book(attempts.succeed, job.id, 1, None)

    both: list[Callable[[], object]] = [work, partial(to_the_end, change, CANCEL, {"task": ADD})]
    assert not [error for error in at_once(both) if isinstance(error, Exception)]
    ended = [book.job(job.id) for job in made]
    assert all(job.finished_at or job.cancel_requested for job in ended)
    assert all(job.state is JobState.CANCELLED for job in ended[1::2])


def test_what_arrives_meanwhile_is_left_alone(book: Book, change: Change) -> None:
    first = change(CANCEL, {"task": ADD}, after=Mark(JobState.QUEUED))
    old, new = book.submit(), book.submit()
    assert first.done == 0
    behind = Mark(JobState.QUEUED, Place(new.accepted_at, new.id))
    assert change(CANCEL, {"task": ADD}, after=behind).done == 1
    assert states(book, [old, new]) == [JobState.CANCELLED, JobState.QUEUED]
