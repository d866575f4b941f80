"""Jobs of many requests share a transaction, and nothing else."""

import asyncio
from typing import Any

import pytest
from quart import Quart, g
from sqlalchemy import event, func, make_url, select

from quart_app import baggage, db, events, jobs, submissions
from quart_app.baggage import Baggage
from quart_app.errors import Conflict, Full, Invalid, NoSuchTask
from quart_app.models import Event, Job, JobState
from quart_app.newjobs import NewJob
from tests.book import ADD


def new(number: int = 1, **options: Any) -> NewJob:
    return NewJob(task=ADD, args=[number], **options)


async def submit(app: Quart, wanted: NewJob) -> Job:
    async with app.app_context():
        return await submissions.submit(wanted)


async def submit_all(app: Quart, *wanted: NewJob) -> list[Any]:
    submitting = (submit(app, one) for one in wanted)
    return await asyncio.gather(*submitting, return_exceptions=True)


async def count(app: Quart, what: Any) -> int:
    async with app.app_context():
        return await db.read(lambda s: s.scalars(select(func.count()).select_from(what)).one())


async def test_a_hundred_at_once_are_a_hundred_jobs_in_few_transactions(app: Quart) -> None:
    commits: list[object] = []
    engine = app.extensions["db"]._async_engines.writing.sync_engine
    event.listen(engine, "commit", commits.append)
    made = await submit_all(app, *map(new, range(100)))
    assert len(commits) <= 2
    async with app.app_context():
        for number, job in enumerate(made):
            kept = await db.read(jobs.get, job.id)
            assert (kept.args, kept.state) == ([number], JobState.QUEUED)
            assert [frame["seq"] for frame in await db.read(events.since, job.id)] == [1]
    assert len({job.id for job in made}) == 100


async def test_each_answer_is_the_job_as_it_is_kept(app: Quart) -> None:
    wanted = new(queue="q", priority=3), new(delay=60), new(unique_key="k")
    async with app.app_context():
        for job in await submit_all(app, *wanted):
            kept = await db.read(jobs.get, job.id)
            for column in set(Job.__mapper__.column_attrs.keys()) - {"published_at", "rings"}:
                shown = getattr(job, column)
                assert shown == getattr(kept, column), column


async def test_what_is_wrong_with_one_is_told_to_its_caller_alone(app: Quart) -> None:
    wrong = NewJob(task=ADD, args=["one"]), NewJob(task="no.such.task"), new(priority=11)
    made = await submit_all(app, new(), *wrong, new())
    kinds = [type(answer) for answer in made]
    assert kinds == [Job, Invalid, NoSuchTask, Invalid, Job]
    assert (await count(app, Job), await count(app, Event)) == (2, 2)


async def test_a_full_queue_refuses_its_own_jobs_and_no_others(app: Quart) -> None:
    app.config["MAX_QUEUE_DEPTH"] = 2
    wanted = [new(queue="narrow") for _ in range(4)] + [new(queue="wide")]
    made = await submit_all(app, *wanted)
    assert sorted(type(answer).__name__ for answer in made[:4]) == ["Full", "Full", "Job", "Job"]
    assert isinstance(made[4], Job)
    assert await count(app, Job) == 3


async def test_one_alone_that_finds_its_queue_full_is_refused(app: Quart) -> None:
    app.config["MAX_QUEUE_DEPTH"] = 0
    with pytest.raises(Full):
        await submit(app, new())
    assert await count(app, Job) == 0


async def test_the_same_key_at_once_gives_the_same_job(app: Quart) -> None:
    made = await submit_all(app, *(new(unique_key="one") for _ in range(8)))
    assert len({job.id for job in made}) == 1
    assert [job.duplicate for job in made].count(False) == 1


async def test_each_job_carries_what_its_own_request_brought(app: Quart) -> None:
    async def submit_as(user: str) -> Job:
        async with app.app_context():
            baggage.carry(Baggage(user=user))
            job = await submissions.submit(new())
            assert g.baggage.user == user
            return job

    users = [f"user {number}" for number in range(20)]
    made = await asyncio.gather(*map(submit_as, users))
    assert [job.context["user"] for job in made] == users


async def test_while_the_database_is_away_each_caller_hears_of_it(app: Quart) -> None:
    database = app.extensions["db"]
    away = "sqlite:////nowhere/at/all.sqlite3" if database.is_sqlite else "mysql://127.0.0.1:1/no"
    there, database.url = database.url, make_url(away)
    await database.close()
    failed = await submit_all(app, new(), new())
    database.url = there
    await database.close()
    assert all(isinstance(error, Exception) for error in failed)
    assert isinstance(await submit(app, new()), Job)
    assert await count(app, Job) == 1


async def test_jobs_with_keys_of_their_own_share_a_transaction_too(app: Quart) -> None:
    commits: list[object] = []
    engine = app.extensions["db"]._async_engines.writing.sync_engine
    event.listen(engine, "commit", commits.append)
    wanted = [keyed(str(number), "body") for number in range(50)]
    made = await submit_all(app, *wanted)
    assert len(commits) <= 2
    again = await submit_all(app, *wanted)
    assert [job.id for job in again] == [job.id for job in made]
    assert (await count(app, Job), await count(app, Event)) == (50, 50)


async def test_a_key_with_another_body_is_a_conflict_for_its_caller_alone(app: Quart) -> None:
    await submit(app, keyed("one", "body"))
    made = await submit_all(app, keyed("one", "other body"), keyed("two", "body"), new())
    assert [type(answer) for answer in made] == [Conflict, Job, Job]
    assert await count(app, Job) == 3


async def test_of_one_key_twice_at_once_the_second_is_held_against_the_first(app: Quart) -> None:
    wanted = keyed("one", "body"), keyed("one", "other body"), keyed("one", "body")
    first, other, third = await submit_all(app, *wanted)
    assert isinstance(other, Conflict)
    assert first.id == third.id
    assert await count(app, Job) == 1


def keyed(key: str, body: str) -> NewJob:
    return new(idempotency_key=key, idempotency_body=body)
