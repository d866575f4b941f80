"""A commit whose answer is lost: what became of it is asked for, and never guessed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from celery.app.trace import build_tracer
from quart import Quart
from sqlalchemy import func, text
from sqlalchemy.orm import Session

from quart_app import attempts, db, jobs, lists, nodes, submissions
from quart_app.celeryext import in_app_context
from quart_app.errors import Unsure
from quart_app.models import Job, JobState, Role, Schedule
from quart_app.newjobs import NewJob
from quart_app.reporter import Run
from quart_app.together import Late
from tasks import outcomes
from tests.book import ADD
from tests.conftest import Caller, Place, make_token, speaking
from tests.cutter import Cutter
from tests.ledger import Ledger
from tests.real import eventually, until

BATCH = {"jobs": [{"task": ADD, "args": [number], "delay": 60} for number in range(3)]}
SCHEDULE = {"name": "nightly", "task": ADD, "args": [1], "cron": "0 3 * * *"}


@pytest.fixture
def behind(clean: Place, cutter: Cutter) -> Ledger:
    """The ledger, with the cutter before its database."""
    return Ledger(clean.app(DATABASE_URL=cutter.url))


@pytest.fixture
async def caller(behind: Ledger) -> AsyncIterator[Caller]:
    """Speaks to an application that has the cutter before its database."""
    database = behind.app.extensions["db"]
    yield speaking(behind.app, make_token(database, Role.OPERATOR))
    await database.close()


@pytest.fixture
async def administrator(behind: Ledger) -> AsyncIterator[Caller]:
    """As `caller`, who may change schedules too."""
    database = behind.app.extensions["db"]
    yield speaking(behind.app, make_token(database, Role.ADMIN))
    await database.close()


async def submit(ledger: Ledger, cutter: Cutter, cut: str) -> Job:
    """Submits a job over a connection that is there, and that is cut at the commit."""
    database = ledger.app.extensions["db"]
    async with ledger.app.app_context():
        try:
            await database.read(lists.page, lists.Filters())
            cutter.cut = cut
            job: Job = await database.run(jobs.submit, ADD, args=[1])
            return job
        finally:
            await database.close()


async def test_what_was_committed_is_accepted_although_its_answer_was_lost(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    job = await submit(behind, cutter, "after")
    assert [kept.id for kept in Ledger(clean.app()).jobs()] == [job.id]


async def test_what_was_not_committed_is_refused_and_leaves_nothing(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    with pytest.raises(Exception, match="Lost connection"):
        await submit(behind, cutter, "before")
    assert Ledger(clean.app()).jobs() == []


async def test_while_the_database_does_not_say_it_is_said_to_be_unknown(
    behind: Ledger, cutter: Cutter
) -> None:
    with pytest.raises(Unsure, match="may or may not have been carried out"):
        await submit(behind, cutter, "after, then away")


async def test_who_asks_waits_until_the_commit_that_was_cut_off_has_ended(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    job = await once_it_waits(asyncio.create_task(submit(behind, cutter, "late")), cutter, clean)
    assert [kept.id for kept in Ledger(clean.app()).jobs()] == [job.id]


async def test_a_commit_that_does_not_end_is_said_to_be_unknown(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    with pytest.raises(Unsure):
        await submit(behind, cutter, "late")
    cutter.may_commit.set()
    await eventually(lambda: asyncio.to_thread(Ledger(clean.app()).jobs))


async def test_a_batch_that_was_committed_is_accepted_although_its_answer_was_lost(
    caller: Caller, cutter: Cutter, clean: Place
) -> None:
    cutter.cut = "after"
    answer = await caller.post("/api/jobs/batch", json=BATCH)
    assert answer.status_code == 202
    kept = Ledger(clean.app()).jobs()
    assert (await answer.get_json())["ids"] == [job.id for job in kept]
    assert len(kept) == 3


async def test_a_batch_waits_until_the_commit_that_was_cut_off_has_ended(
    caller: Caller, cutter: Cutter, clean: Place
) -> None:
    cutter.cut = "late"
    asked = asyncio.create_task(caller.post("/api/jobs/batch", json=BATCH))
    assert (await once_it_waits(asked, cutter, clean)).status_code == 202
    assert len(Ledger(clean.app()).jobs()) == 3


@pytest.mark.parametrize(
    ("cut", "title"),
    [("before", "Service Unavailable"), ("after, then away", "Outcome unknown")],
)
async def test_of_a_batch_it_is_said_what_is_known(
    caller: Caller, cutter: Cutter, clean: Place, cut: str, title: str
) -> None:
    cutter.cut = cut
    answer = await caller.post("/api/jobs/batch", json=BATCH)
    assert (answer.status_code, (await answer.get_json())["title"]) == (503, title)
    assert len(Ledger(clean.app()).jobs()) == (0 if cut == "before" else 3)


async def test_a_job_is_shown_as_cancelled_although_the_answer_was_lost(
    caller: Caller, cutter: Cutter
) -> None:
    batch = await caller.post("/api/jobs/batch", json=BATCH)
    (first, *_) = (await batch.get_json())["ids"]
    cutter.cut = "after"
    answer = await caller.post(f"/api/jobs/{first}/cancel")
    assert (answer.status_code, (await answer.get_json())["state"]) == (202, "cancelled")


@pytest.mark.parametrize("cut", ["after", "late"])
async def test_a_schedule_is_made_once_although_its_answer_was_lost(
    administrator: Caller, cutter: Cutter, clean: Place, cut: str
) -> None:
    cutter.cut = cut
    asked = asyncio.create_task(administrator.post("/api/schedules", json=SCHEDULE))
    assert (await once_it_waits(asked, cutter, clean)).status_code == 201
    assert [schedule["name"] for schedule in await schedules_of(administrator)] == ["nightly"]


@pytest.mark.parametrize(
    ("cut", "title"),
    [("before", "Service Unavailable"), ("after, then away", "Outcome unknown")],
)
async def test_of_a_schedule_it_is_said_what_is_known(
    administrator: Caller, cutter: Cutter, clean: Place, cut: str, title: str
) -> None:
    cutter.cut = cut
    answer = await administrator.post("/api/schedules", json=SCHEDULE)
    assert (answer.status_code, (await answer.get_json())["title"]) == (503, title)
    with clean.database.session(reading=True) as session:
        assert session.query(func.count(Schedule.id)).scalar() == (0 if cut == "before" else 1)


async def test_a_schedule_is_paused_although_the_answer_was_lost(
    administrator: Caller, cutter: Cutter
) -> None:
    made = await (await administrator.post("/api/schedules", json=SCHEDULE)).get_json()
    cutter.cut = "after"
    answer = await administrator.post(f"/api/schedules/{made['id']}/pause")
    assert (answer.status_code, (await answer.get_json())["paused"]) == (200, True)


async def test_a_cut_off_change_that_leaves_no_proof_is_said_to_be_unknown(
    behind: Ledger, cutter: Cutter
) -> None:
    def change(session: Session) -> None:
        session.execute(text("UPDATE jobs SET queue = queue"))

    async with behind.app.app_context():
        try:
            await db.read(lists.page, lists.Filters())
            cutter.cut = "before"
            with pytest.raises(Unsure):
                await db.run(change)
        finally:
            await db.get().close()


async def cancel_all(caller: Caller, cutter: Cutter, cut: str) -> Any:
    await caller.post("/api/jobs/batch", json=BATCH)
    cutter.cut = cut
    return await caller.post("/api/jobs/cancel", json={"task": ADD})


async def test_many_jobs_are_cancelled_although_the_answer_was_lost(
    caller: Caller, cutter: Cutter
) -> None:
    answer = await cancel_all(caller, cutter, "after")
    done = {"matched": 3, "done": 3, "refused": 0, "next": None}
    assert (answer.status_code, await answer.get_json()) == (202, done)


async def test_of_many_that_are_cancelled_it_is_said_that_the_outcome_is_unknown(
    caller: Caller, cutter: Cutter
) -> None:
    answer = await cancel_all(caller, cutter, "after, then away")
    assert (answer.status_code, (await answer.get_json())["title"]) == (503, "Outcome unknown")


async def test_all_who_share_a_transaction_hear_that_it_is_unknown(
    clean: Place, cutter: Cutter
) -> None:
    app = clean.app(DATABASE_URL=cutter.url)
    async with app.app_context():
        await submit_shared(1)
        cutter.cut = "after, then away"
        both = asyncio.gather(submit_shared(2), submit_shared(3), return_exceptions=True)
        answers = [type(answer) for answer in await both]
        await app.extensions["db"].close()
    assert answers == [Unsure, Unsure]
    assert sorted(job.args[0] for job in Ledger(clean.app()).jobs()) == [1, 2, 3]


async def test_a_request_waits_for_a_frozen_database_for_so_long_and_hears_what_is_known(
    clean: Place, cutter: Cutter
) -> None:
    app = clean.app(DATABASE_URL=cutter.url, REQUEST_PATIENCE=2.0)
    async with app.app_context():
        await submit_shared(1)
        cutter.passes.clear()
        asked = asyncio.create_task(submit_shared(2))
        await asyncio.to_thread(cutter.holds.wait, 20)  # its transaction has begun
        left_out = asyncio.create_task(submit_shared(3))
        with pytest.raises(Unsure):
            await asked
        with pytest.raises(Late):
            await left_out
        cutter.passes.set()
        await eventually(lambda: is_accepted(4))
        kept = await db.read(lists.page, lists.Filters())
        await app.extensions["db"].close()
    # The second one may have been carried out, as was said; and it has been.
    assert {job.args[0] for job in kept.jobs} == {1, 2, 4}


async def once_it_waits(asked: asyncio.Task[Any], cutter: Cutter, place: Place) -> Any:
    """What it comes to, when the commit goes on once somebody waits for its rows."""
    waiting = text("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")

    async def waits() -> bool:
        with place.database.session(reading=True) as session:
            return asked.done() or session.execute(waiting).one()[1] != "0"

    await eventually(waits)
    cutter.may_commit.set()
    return await asked


async def schedules_of(caller: Caller) -> Any:
    """Those that somebody made."""
    items = (await (await caller.get("/api/schedules")).get_json())["items"]
    return [schedule for schedule in items if schedule["source"] != "settings"]


async def submit_shared(number: int) -> Job:
    return await submissions.submit(NewJob(task=ADD, args=[number]))


async def is_accepted(number: int) -> bool:
    with suppress(Late, Unsure):
        return bool(await submit_shared(number))
    return False


def test_a_workers_outcome_is_recorded_once_although_its_answer_was_lost(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    job_id = behind.submit("add", 1)
    job = behind.within(lambda s: attempts.claim(s, job_id, ADD, "w", 60))
    assert job

    def succeed() -> None:
        run = Run(job, behind.app.extensions["reporter"])
        outcomes.record(run, 60, lambda s: attempts.succeed(s, job_id, 1, "done"))

    cutter.cut = "after"
    in_app_context(behind.app, succeed)
    events = Ledger(clean.app()).events(job_id, "state")
    assert [event["state"] for event in events] == ["queued", "running", "succeeded"]


def test_a_line_is_kept_once_although_its_answer_was_lost(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    job_id = behind.submit("add", 1)
    job = behind.within(lambda s: attempts.claim(s, job_id, ADD, "w", 60))
    assert job
    reporter = behind.app.extensions["reporter"]
    run = reporter.start(job)
    cutter.cut = "after"
    run.log("first", "info")
    until(lambda: not cutter.cut)
    run.log("second", "info")
    until(lambda: not run.is_unsaid)
    reporter.end(run)
    said = [event["message"] for event in Ledger(clean.app()).events(job_id, "log")]
    assert said == ["first", "second"]


def test_a_claim_whose_answer_was_lost_is_taken_up(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    job_id = behind.submit("add", 1)
    until(lambda: behind.job(job_id).published_at)
    cutter.cut = "after"
    ring(behind.app, job_id)
    job = Ledger(clean.app()).job(job_id)
    assert (job.state, job.attempt, job.result) == (JobState.SUCCEEDED, 1, 2)


def test_what_runs_in_another_thread_is_not_taken_up_again(
    behind: Ledger, cutter: Cutter, clean: Place
) -> None:
    job_id = behind.submit("add", 1)
    until(lambda: behind.job(job_id).published_at)
    job = behind.within(lambda s: attempts.claim(s, job_id, ADD, "w", 60, holder=nodes.holder()))
    assert job
    reporter = behind.app.extensions["reporter"]
    run = reporter.start(job)
    cutter.cut = "before"
    ring(behind.app, job_id)
    reporter.end(run)
    assert (cutter.cut, Ledger(clean.app()).job(job_id).state) == ("", JobState.RUNNING)


def ring(app: Quart, job_id: str) -> None:
    """The job's doorbell, as a worker hears it."""
    celery = app.extensions["celery"]
    build_tracer(ADD, celery.tasks[ADD], app=celery)(job_id, (), {}, {"id": job_id})
