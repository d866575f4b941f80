"""Why a job is where it is: each reason, with its sentence and its facts."""

import time
from datetime import timedelta
from typing import Any

import pytest

from quart_app import attempts, jobs, nodes, why
from quart_app.errors import NotFound
from quart_app.models import Job, JobState, Node
from quart_app.why import Why
from tests.book import ADD, Book

INFO = {"hostname": "w@here", "queues": ["celery"]}
NAME = "w@here:1"


def told(book: Book, job: Job) -> Why:
    return book(why.explain, job.id)


def sentence(book: Book, job: Job) -> str:
    found = told(book, job)
    return f"{found.reason}: {found.detail}"


def at(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def started(book: Book, worker: str = "w@here") -> Job:
    job_id = book.submit().id
    assert book(attempts.claim, job_id, ADD, worker, 60.0)
    return book.job(job_id)


@pytest.fixture
def manned(book: Book) -> Book:
    """With a worker online that listens to the queue `celery`."""
    book(nodes.seen, NAME, "worker", "boot", INFO)
    return book


def silence(book: Book, name: str, seconds: float) -> None:
    node = book(lambda s: s.get(Node, name))
    book.set(node, seen_at=node.seen_at - timedelta(seconds=seconds))


def late(book: Book, state: JobState) -> Job:
    job = book.submit(delay=60)
    book.set(job, state=state, available_at=job.accepted_at - timedelta(seconds=60))
    return book.job(job.id)


def test_an_unknown_job_is_not_explained(book: Book) -> None:
    with pytest.raises(NotFound):
        book(why.explain, "nothing")


def test_a_scheduled_job_waits_for_its_time(book: Book) -> None:
    job = book.submit(delay=60)
    assert sentence(book, job) == f"not_due: It waits for its time, {at(job.available_at)}."
    assert told(book, job).data == {"until": job.available_at}


def test_a_failed_attempt_waits_for_the_next(book: Book) -> None:
    job = started(book)
    book(attempts.postpone, job.id, 1, "ValueError: no", 60.0)
    until = book.job(job.id).available_at
    said = f"retrying: Attempt 1 of 1 failed; it is tried again at {at(until)}."
    assert sentence(book, job) == said
    assert told(book, job).data["error"] == "ValueError: no"


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.RETRYING])
def test_what_nothing_brought_on_tells_of_beat(book: Book, state: JobState) -> None:
    job = late(book, state)
    begin = f"overdue: It was due at {at(job.available_at)} and nothing has brought it on: "
    assert sentence(book, job) == begin + "no beat runs."
    began = time.monotonic()
    book(nodes.seen, "beat", "beat", "boot", {})
    assert sentence(book, job) == begin + "beat runs, so see its log."
    silence(book, "beat", 90)
    said = sentence(book, job)
    ticks = range(90, 91 + round(time.monotonic() - began))
    assert said in [f"{begin}beat has not ticked for {seconds} s." for seconds in ticks]


def test_a_queue_without_a_worker_is_named(manned: Book) -> None:
    job = manned.submit(queue="mail")
    assert sentence(manned, job) == "no_worker: No worker that is online consumes queue 'mail'."
    assert told(manned, job).data == {"queue": "mail", "workers": 0}


def test_a_worker_that_fell_silent_consumes_nothing(manned: Book) -> None:
    silence(manned, NAME, nodes.GONE_AFTER + 1)
    assert told(manned, manned.submit()).reason == "no_worker"


def test_a_task_that_none_of_the_workers_of_its_queue_knows_is_named(manned: Book) -> None:
    manned(nodes.seen, NAME, "worker", "boot", INFO | {"tasks": ["tasks.scheduler.send_sms"]})
    manned(nodes.seen, "other", "worker", "boot", {"queues": ["mail"], "tasks": [ADD]})
    job = manned.submit()
    said = f"No worker that is online and consumes queue 'celery' knows '{ADD}'"
    hint = "is its module in CELERY_IMPORTS there?"
    assert sentence(manned, job) == f"unknown_task: {said}: {hint}"
    assert told(manned, job).data == {"queue": "celery", "workers": 1, "task": ADD}
    manned(nodes.seen, "third", "worker", "boot", INFO | {"tasks": [ADD]})
    assert told(manned, job).reason == "unpublished"


def test_what_the_broker_has_not_got_is_told_from_what_it_has(manned: Book) -> None:
    job = manned.submit()
    said = "The broker has not got it yet; the relay hands it over as soon as it can."
    assert sentence(manned, job) == f"unpublished: {said}"
    manned.set(job, published_at=job.accepted_at)
    said = "It is next in queue 'celery': the first worker that is free takes it."
    assert sentence(manned, job) == f"next: {said}"


def test_those_before_it_are_counted_by_priority_and_time(manned: Book) -> None:
    first, second, urgent, _ = (manned.submit(priority=n) for n in (5, 5, 0, 9))
    for seconds, job in enumerate([first, second, urgent]):
        manned.set(job, published_at=job.accepted_at + timedelta(seconds=seconds))
    manned.submit(queue="other")
    assert [told(manned, job).reason for job in (urgent, first)] == ["next", "behind"]
    assert sentence(manned, first) == "behind: It waits behind 1 job in queue 'celery'."
    assert sentence(manned, second) == "behind: It waits behind 2 jobs in queue 'celery'."


def test_what_waits_for_room_on_the_broker_is_behind_the_rest(
    manned: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung, waits, last = (manned.submit() for _ in range(3))
    manned.set(rung, published_at=rung.accepted_at)
    monkeypatch.setattr(manned.app.extensions["publisher"], "most_doorbells", 1)
    assert [told(manned, job).data.get("ahead") for job in (waits, last)] == [1, 2]


def test_a_running_job_is_held_by_its_worker(manned: Book) -> None:
    job = started(manned)
    lease = f"(attempt 1, lease until {at(job.lease_until)})"
    said = f"held: Worker 'w@here' has held it since {at(job.started_at)} {lease}."
    assert sentence(manned, job) == said
    assert told(manned, job).data["worker"] == "w@here"


def test_a_job_that_was_asked_to_stop_says_so(manned: Book) -> None:
    job = started(manned)
    manned(jobs.cancel, job.id)
    said = "It was asked to stop, and worker 'w@here' has not ended it yet."
    assert sentence(manned, job) == f"asked_to_stop: {said}"


def test_a_silent_worker_loses_its_job_at_the_end_of_the_lease(manned: Book) -> None:
    job = started(manned)
    silence(manned, NAME, 30)
    seen = told(manned, job).data["worker_seen_at"]
    begin = f"worker_silent: Worker 'w@here' has been silent since {at(seen)}; the job is "
    assert sentence(manned, job) == f"{begin}given back at {at(job.lease_until)}."
    manned(jobs.cancel, job.id)
    assert sentence(manned, job) == f"{begin}cancelled at {at(job.lease_until)}."


def test_a_job_whose_lease_is_over_is_about_to_be_given_back(manned: Book) -> None:
    job = started(manned)
    lease = job.accepted_at - timedelta(seconds=90)
    manned.set(job, lease_until=lease)
    seen = told(manned, job).data["worker_seen_at"]
    begin = f"lease_over: Worker 'w@here' has not kept it since its lease ended, {at(lease)}"
    heard = f"(the worker was last heard of at {at(seen)})"
    assert sentence(manned, job) == f"{begin} {heard}; it is given back within a few seconds."
    manned(nodes.gone, NAME, "boot")
    assert sentence(manned, job).startswith(f"{begin} (the worker is gone); it is given back")


def test_a_new_life_of_the_worker_does_not_hold_what_the_one_before_held(manned: Book) -> None:
    job = manned.submit()
    manned(attempts.claim, job.id, ADD, "w@here", 60.0, holder="an earlier boot/7")
    assert sentence(manned, job).startswith("worker_silent: Worker 'w@here' is gone; ")
    manned(nodes.seen, "w@here:7", "worker", "an earlier boot", INFO)
    assert told(manned, job).reason == "held"


def test_a_worker_that_has_gone_is_not_called_silent(book: Book) -> None:
    assert "Worker 'x' is gone; the job is given back at " in sentence(book, started(book, "x"))


def test_an_ended_job_says_how(book: Book) -> None:
    done, broken, waits = started(book), started(book), book.submit()
    book(attempts.succeed, done.id, 1, None)
    book(attempts.fail, broken.id, 1, "ValueError: no\nmore")
    book(jobs.cancel, waits.id)
    ended = [at(book.job(job.id).finished_at) for job in (done, broken, waits)]
    assert sentence(book, done) == f"ended: It succeeded at {ended[0]}."
    assert sentence(book, broken) == f"ended: It failed at {ended[1]}: ValueError: no."
    assert sentence(book, waits) == f"ended: It was cancelled at {ended[2]}."
    assert told(book, broken).data["state"] == "failed"
