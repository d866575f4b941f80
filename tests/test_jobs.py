"""The ledger of jobs: accepted, found, cancelled and retried; and the whole way on a worker."""

import math
import time
import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from quart_app import attempts, bulk, db, jobs
from quart_app.celeryext import in_app_context
from quart_app.errors import Conflict, Full, Invalid, NotFound, Problem
from quart_app.lists import Filters
from quart_app.models import Event, Job, JobState, Repeat
from quart_app.moves import Move
from quart_app.newjobs import NewJob
from tests.book import ADD, Book, at_once
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import eventually, until

REPEAT, ANYTHING = "tests.sample_tasks.repeat", "tests.sample_tasks.anything"
KEY = {"idempotency_key": "a" * 64, "idempotency_body": "b" * 64}


def new(**options: Any) -> jobs.NewJob:
    return jobs.NewJob(task=ADD, **{"args": [1], **options})


def rolled_back(book: Book) -> None:
    """Submits in a transaction that comes to nothing."""
    with suppress(ZeroDivisionError), book.transaction() as call:
        call(jobs.submit, ADD, args=[1])
        raise ZeroDivisionError


def nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


async def ended(client: Any, job_id: str) -> dict[str, Any]:
    async def final() -> dict[str, Any]:
        job: dict[str, Any] = await (await client.get(f"/api/jobs/{job_id}")).get_json()
        return job if job["state"] in ("succeeded", "failed", "cancelled") else {}

    return await eventually(final)


async def submit(client: Any, task: str, **body: Any) -> dict[str, Any]:
    answer = await client.post("/api/jobs", json={"task": f"tests.sample_tasks.{task}", **body})
    assert answer.status_code == 202, await answer.get_data()
    job: dict[str, Any] = await answer.get_json()
    return job


async def test_a_job_runs_and_its_result_is_kept(client: Any, worker: Path) -> None:
    job = await submit(client, "add", args=[2], kwargs={"right": 3})
    assert (await ended(client, job["id"]))["result"] == 5


def test_a_job_exists_if_and_only_if_its_transaction_commits(book: Book) -> None:
    rolled_back(book)
    assert (book.count(Job), book.count(Event)) == (0, 0)
    assert book.job(book.submit().id).state is JobState.QUEUED


def test_ids_are_uuid7_and_sort_by_time(book: Book) -> None:
    ids = [book.submit().id for _ in range(5)]
    ids += [job.id for job in book(jobs.submit_many, [new() for _ in range(20)])]
    assert ids == sorted(ids)
    assert {uuid.UUID(id_).version for id_ in ids} == {7}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"task": "no.such"}, "no.such"),
        ({"task": "celery.chord"}, "celery.chord"),
        ({"args": []}, "kwargs.left"),
        ({"args": ["one"]}, "args.0"),
        ({"args": [1, 2, 3]}, "args"),
        ({"args": [1], "kwargs": {"left": 2}}, "kwargs.left"),
        ({"args": [1], "kwargs": {"middle": 2}}, "kwargs.middle"),
        ({"queue": "with space"}, "queue"),
        ({"queue": "q" * 101}, "queue"),
        ({"queue": "a\nb"}, "queue"),
        ({"priority": 10}, "priority"),
        ({"priority": -1}, "priority"),
        ({"delay": -0.1}, "delay"),
        ({"delay": math.nan}, "delay"),
        ({"delay": math.inf}, "delay"),
        ({"delay": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "delay"),
        ({"eta": datetime(2030, 1, 1)}, "eta"),  # noqa: DTZ001
        ({"eta": datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=9)))}, "eta"),
        ({"eta": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))}, "eta"),
        ({"unique_key": "k" * 256}, "unique_key"),
        ({"unique_key": "\0"}, "unique_key"),
        ({"unique_key": "\ud800"}, "unique_key"),
        ({"task": REPEAT, "args": ["\0"]}, "args.0"),
        ({"task": REPEAT, "args": ["\udc00"]}, "args.0"),
        ({"task": ANYTHING, "args": [{"a": [1, math.nan]}]}, "args.0.a.1"),
        ({"task": ANYTHING, "args": [{"a": {"\ud800": 1}}]}, "args.0.a"),
        ({"task": ANYTHING, "args": [nested(101)]}, "args.0.0"),
        ({"task": ANYTHING, "args": [nested(800)]}, "args.0.0"),
    ],
)
def test_what_cannot_be_a_job_is_refused_by_name_and_leaves_no_row(
    book: Book, wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises((Invalid, NotFound)) as refused:
        book.submit(**wrong)
    assert getattr(refused.value, "field", named).startswith(named)
    assert named in str(refused.value)
    assert (book.count(Job), book.count(Event)) == (0, 0)


def test_of_many_all_are_accepted_or_none(book: Book) -> None:
    with pytest.raises(Invalid):
        book(jobs.submit_many, [new(), new(), new(priority=11)])
    assert book.count() == 0


def test_a_queue_takes_as_many_jobs_as_it_may_hold(book: Book) -> None:
    book.app.config["MAX_QUEUE_DEPTH"] = 3
    taken = [book.submit() for _ in range(3)]
    for _ in range(2):
        with pytest.raises(Full):
            book.submit()
    assert book.submit(queue="other").queue == "other"
    book(jobs.cancel, taken[0].id)
    book.submit()
    with pytest.raises(Full):
        book(jobs.submit_many, [new(), new(queue="other")])
    assert book.count() == 5


def test_what_is_due_within_a_minute_takes_room_in_a_queue(book: Book) -> None:
    book.app.config["MAX_QUEUE_DEPTH"] = 2
    book.submit(delay=0.001)
    book.submit(delay=3600)
    book(jobs.submit_many, [new(delay=30), new(delay=3600)])
    book.app.extensions.pop("queue_depths")
    with pytest.raises(Full):
        book.submit(delay=0.001)
    assert book.submit(delay=3600).state is JobState.SCHEDULED


def test_what_was_rolled_back_takes_no_room_in_a_queue(book: Book) -> None:
    book.app.config["MAX_QUEUE_DEPTH"] = 3
    for _ in range(4):
        rolled_back(book)
    assert len(book(jobs.submit_many, [new() for _ in range(3)])) == 3


def test_what_other_processes_do_to_a_queue_counts_within_a_second(book: Book) -> None:
    book.app.config["MAX_QUEUE_DEPTH"] = 2
    jobs_there = book(jobs.submit_many, [new(), new()])
    with pytest.raises(Full):
        book.submit()
    book(lambda session: session.execute(delete(Job)))
    assert jobs_there
    started = time.monotonic()
    until(lambda: not isinstance(at_once([book.submit])[0], Full))
    assert time.monotonic() - started < 5


def test_a_repeated_request_is_answered_even_when_the_queue_is_full(book: Book) -> None:
    book.app.config["MAX_QUEUE_DEPTH"] = 1
    job = book.submit(**KEY)
    assert book.submit(**KEY).id == job.id


def test_one_live_job_has_a_unique_key_until_it_ends(book: Book) -> None:
    first, again = book.submit(unique_key="x"), book.submit(unique_key="x")
    assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
    assert book.submit(unique_key="y").id != first.id
    assert book.submit(REPEAT, args=["a"], unique_key="x").id != first.id
    book(jobs.cancel, first.id)
    assert book.submit(unique_key="x").id != first.id


@pytest.mark.parametrize("options", [{"unique_key": "x"}, {"idempotency_key": "k" * 64}])
def test_of_jobs_submitted_at_once_under_one_key_one_is_made(
    book: Book, options: dict[str, Any]
) -> None:
    made = at_once([partial(book.submit, **options)] * 8)
    assert not [error for error in made if isinstance(error, Exception)]
    assert len({job.id for job in made if isinstance(job, Job)}) == 1
    assert (book.count(Job), book.count(Event)) == (1, 1)


def test_an_idempotency_key_stands_for_one_body_and_one_day(book: Book) -> None:
    job = book.submit(**KEY)
    assert book.submit(**KEY).id == job.id
    with pytest.raises(Conflict, match="another body"):
        book.submit(**KEY | {"idempotency_body": "c" * 64})
    book.set(job, accepted_at=job.accepted_at - timedelta(hours=24, seconds=1))
    assert book.submit(**KEY).id != job.id


def test_a_key_that_found_a_live_job_stands_for_it_after_its_end_too(book: Book) -> None:
    live = book.submit(unique_key="x")
    for _ in range(2):
        again = book.submit(unique_key="x", **KEY)
        assert (again.id, again.duplicate) == (live.id, True)
    book(jobs.cancel, live.id)
    again = book.submit(unique_key="x", **KEY)
    assert (again.id, again.state, again.duplicate) == (live.id, JobState.CANCELLED, True)
    with pytest.raises(Conflict, match="another body"):
        book.submit(unique_key="x", **KEY | {"idempotency_body": "c" * 64})
    assert book.count(Job) == 1


def test_a_key_that_found_a_live_job_is_free_again_after_a_day(book: Book) -> None:
    live = book.submit(unique_key="x")
    book.submit(unique_key="x", **KEY)
    book(jobs.cancel, live.id)
    book(lambda s: s.execute(update(Repeat).values(accepted_at=db.now(-24 * 3600 - 1))))
    fresh = book.submit(unique_key="x", **KEY)
    assert (fresh.id != live.id, fresh.duplicate) == (True, False)
    assert book.submit(unique_key="x", **KEY).id == fresh.id


def test_one_key_has_one_answer_though_the_live_job_ends_meanwhile(book: Book) -> None:
    """Whether each finds the live job or makes another: all of them say the same."""
    for _ in range(10):
        live = book.submit(unique_key="x")
        ask = partial(book.submit, unique_key="x", **KEY)
        made: list[Any] = at_once([ask, ask, partial(book, jobs.cancel, live.id), ask, ask])
        assert not [error for error in made if isinstance(error, Exception)]
        answers = [(job.id, job.duplicate) for job in [*made[:2], *made[3:], ask()]]
        assert len({job_id for job_id, _ in answers}) == 1
        assert {is_duplicate for _, is_duplicate in answers} == {answers[0][0] == live.id}
        book(lambda s: s.execute(delete(Job)))


def test_one_key_with_two_bodies_is_refused_though_one_of_them_finds_a_live_job(
    book: Book,
) -> None:
    """Sent at once, where one makes a job and the other meets one that is there already."""
    book.submit(unique_key="x")

    def ask(**options: Any) -> Job:
        submit = partial(book.database.run_here, jobs.submit, ADD, args=[1], **options)
        return in_app_context(book.app, submit)

    for turn in range(30):
        key = {"idempotency_key": f"{turn:0>64}"}
        one = partial(ask, **key, idempotency_body="b" * 64)
        other = partial(ask, unique_key="x", **key, idempotency_body="c" * 64)
        made = at_once([one, other])
        assert [type(answer) for answer in made].count(Conflict) == 1, made
        assert [type(answer) for answer in made].count(Job) == 1, made


def test_a_delayed_job_is_scheduled_and_one_of_the_past_is_queued(book: Book) -> None:
    job = book.submit(delay=90)
    assert (job.state, job.available_at - job.accepted_at) == (
        JobState.SCHEDULED,
        timedelta(seconds=90),
    )
    assert job.eta == job.available_at
    assert book.submit(eta=datetime(2020, 1, 1, tzinfo=UTC)).state is JobState.QUEUED


@pytest.mark.parametrize("job_id", ["no-such", "", "世界", "\udc80", "x" * 5000, "a\0b"])
def test_an_unknown_id_is_not_found_whatever_it_is(book: Book, job_id: str) -> None:
    for verb in (jobs.get, jobs.cancel, jobs.retry):
        with pytest.raises(NotFound):
            book(verb, job_id)


def test_an_id_with_a_space_at_its_end_is_another(book: Book) -> None:
    job = book.submit()
    for verb in (jobs.get, jobs.cancel, jobs.retry):
        with pytest.raises(NotFound):
            book(verb, f"{job.id} ")
    assert book.job(job.id).state is JobState.QUEUED


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.SCHEDULED, JobState.RETRYING])
def test_a_waiting_job_is_cancelled_at_once(book: Book, state: JobState) -> None:
    job = book.submit()
    book.set(job, state=state)
    cancelled = book(jobs.cancel, job.id)
    assert (cancelled.state, cancelled.live_key) == (JobState.CANCELLED, None)
    assert cancelled.finished_at is not None
    assert [event["state"] for event in book.events(job.id)] == ["queued", "cancelled"]


def test_a_running_job_is_asked_to_stop_and_an_ended_one_cannot_be(book: Book) -> None:
    job = book.submit()
    book.set(job, state=JobState.RUNNING)
    asked = book(jobs.cancel, job.id)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
        book.set(job, state=state)
        with pytest.raises(Conflict, match=state):
            book(jobs.cancel, job.id)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_retried_job_is_the_same_job_going_on(book: Book, state: JobState) -> None:
    job = book.submit(delay=3600, unique_key="x")
    book.set(job, state=state, attempt=1, live_key=None, cancel_requested=True, losses=2)
    again = book(jobs.retry, job.id)
    assert (again.id, again.state, again.max_attempts) == (job.id, JobState.QUEUED, 2)
    assert (again.cancel_requested, again.losses, again.finished_at) == (False, 0, None)
    taken = book(attempts.claim, job.id, ADD, "w", 9)
    assert taken
    assert taken.attempt == 2
    assert [event["seq"] for event in book.events(job.id)] == [1, 2, 3]
    assert book.submit(unique_key="x").id == job.id


@pytest.mark.parametrize(
    "state", [state for state in JobState if state not in (JobState.FAILED, JobState.CANCELLED)]
)
def test_only_what_failed_or_was_cancelled_is_retried(book: Book, state: JobState) -> None:
    job = book.submit()
    book.set(job, state=state)
    with pytest.raises(Conflict, match=state):
        book(jobs.retry, job.id)
    assert book.job(job.id).state is state


def test_a_job_whose_key_has_gone_to_another_is_not_retried(book: Book) -> None:
    job = book.submit(unique_key="x")
    book(jobs.cancel, job.id)
    book.submit(unique_key="x")
    with pytest.raises(Conflict, match="unique_key"):
        book(jobs.retry, job.id)
    assert book.job(job.id).state is JobState.CANCELLED


def test_of_sixteen_that_move_a_job_at_once_one_does(book: Book) -> None:
    job = book.submit()
    move = partial(book, Move(JobState.CANCELLED, from_=jobs.WAITING), job.id)
    moved = at_once([move] * 16)
    assert not [error for error in moved if isinstance(error, Exception)]
    assert len([job for job in moved if job]) == 1
    assert [event["seq"] for event in book.events(job.id)] == [1, 2]


def test_a_job_goes_where_celerys_routes_send_its_task(clean: Place) -> None:
    routes = {"tests.sample_tasks.add": {"queue": "routed"}}
    ledger = Ledger(clean.app(CELERY_TASK_ROUTES=routes))
    assert ledger.job(ledger.submit("add", 1)).queue == "routed"
    assert ledger.job(ledger.submit("add", 1, queue="named")).queue == "named"


def test_a_queue_that_celery_is_not_to_make_is_refused(clean: Place) -> None:
    ledger = Ledger(clean.app(CELERY_TASK_CREATE_MISSING_QUEUES=False))
    with pytest.raises(Invalid, match="queue: expected one of celery"):
        ledger.submit("add", 1, queue="nowhere")
    assert ledger.job(ledger.submit("add", 1)).queue == "celery"


@pytest.mark.parametrize(
    "queue",
    ["unacked", "unacked_index", "_kombu.binding.celery", "x.pidbox", "quartermaster:job:1"],
)
def test_a_queue_may_not_have_the_name_of_a_key_of_the_broker(book: Book, queue: str) -> None:
    with pytest.raises(Invalid, match="queue: "):
        book(jobs.submit, ADD, args=[1], queue=queue)


@pytest.mark.parametrize("state", ["queued", "retrying"])
def test_a_job_that_its_worker_lets_go_while_it_is_cancelled_is_cancelled(
    book: Book, state: str
) -> None:
    job = book.submit()
    book.set(job, state=JobState.RUNNING)
    with book.interrupted(f"UPDATE jobs SET state = '{state}'", before="UPDATE jobs", turn=2):
        assert book(jobs.cancel, job.id).state is JobState.CANCELLED
    assert book.job(job.id).state is JobState.CANCELLED


def test_a_job_that_was_cancelled_and_then_fails_is_cancelled(book: Book) -> None:
    job = book(jobs.submit, ADD, args=[1])
    book(attempts.claim, job.id, ADD, "a worker", 60)
    book(jobs.cancel, job.id)
    book(attempts.postpone, job.id, 1, "stumbled", 1.0)
    assert book(jobs.get, job.id).state is JobState.CANCELLED


@pytest.mark.parametrize("delay", [None, 3600], ids=["queued", "scheduled"])
def test_the_last_event_of_what_never_ran_says_why(book: Book, delay: float | None) -> None:
    one, other = book.submit(delay=delay), book.submit(delay=delay)
    book(jobs.cancel, one.id)
    cancel_all = partial(bulk.run, book.database, bulk.CANCEL, Filters(task=ADD))
    in_app_context(book.app, cancel_all)
    for job in (one, other):
        assert book.events(job.id)[-1]["error"] == "cancelled while it waited"


def test_what_is_wrong_with_one_of_many_is_told_with_its_place(book: Book) -> None:
    for wrong, said in (
        (new(args=["one"]), r"^jobs\.1\.args\.0: "),
        (new(priority=11), r"^jobs\.1\.priority: "),
        (NewJob(task="no.such"), r"^jobs\.1\.task: There is no task 'no\.such'"),
    ):
        with pytest.raises(Problem, match=said):
            book(jobs.submit_many, [new(), wrong])


def test_what_another_client_sent_becomes_one_job_however_often_it_comes(book: Book) -> None:
    job_id = str(uuid.uuid4())
    adopt = partial(book, jobs.adopt, job_id, NewJob(task=ADD, args=[1]))
    assert Counter([*at_once([adopt] * 3), adopt()]) == {True: 1, False: 3}
    assert [event["seq"] for event in book.events(job_id)] == [1]
