"""Celery's canvas and links, made of tasks whose runs are jobs: each part is a job of its own."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from quart_app import baggage
from quart_app.baggage import Baggage
from quart_app.celeryext import in_app_context, publish
from quart_app.models import Job
from tests import sample_tasks
from tests.conftest import Place, speaking
from tests.ledger import Ledger
from tests.real import until


def start(ledger: Ledger, workflow: Callable[[Any], Any]) -> Any:
    """What starting `workflow(tasks)` gives; `tasks` gives a task of the samples by its name."""

    def started() -> Any:
        return workflow(lambda name: getattr(sample_tasks, name)).apply_async()

    return in_app_context(ledger.app, started)


def jobs_of(ledger: Ledger, count: int) -> list[Job]:
    """So many jobs, once they have come and ended."""
    until(lambda: len(ledger.jobs()) == count)
    return [ledger.ended(job.id) for job in ledger.jobs()]


def test_each_part_of_a_chain_is_a_job_given_the_result_before(
    ledger: Ledger, worker: Path
) -> None:
    last = start(ledger, lambda task: chain(task("add").s(1), task("add").s(2), task("add").s(3)))
    jobs = jobs_of(ledger, 3)
    assert sorted(job.args for job in jobs) == [[1], [2, 2], [4, 3]]
    assert ledger.ended(last.id).result == 7


def test_a_chain_ends_where_a_part_fails(ledger: Ledger, worker: Path) -> None:
    last = start(ledger, lambda task: chain(task("fail").si("no"), task("add").s(1)))
    (job,) = jobs_of(ledger, 1)
    assert job.error == "ValueError: no"
    assert last.parent.id == job.id


def test_each_part_of_a_group_is_a_job(ledger: Ledger, worker: Path) -> None:
    parts = start(ledger, lambda task: group(task("add").s(number) for number in range(5)))
    results = {job.id: job.result for job in jobs_of(ledger, 5)}
    assert [results[part.id] for part in parts] == [1, 2, 3, 4, 5]


def test_a_link_is_a_job_too(ledger: Ledger, worker: Path) -> None:
    start(ledger, lambda task: task("add").s(1).set(link=task("add").s(5)))
    assert sorted(job.result or 0 for job in jobs_of(ledger, 2)) == [2, 7]


def test_what_travels_reaches_the_end_of_a_chain(ledger: Ledger, worker: Path) -> None:
    def workflow(task: Any) -> Any:
        baggage.carry(Baggage(request_id="abc-1"))
        return chain(task("carry").si(), task("carry").si(), task("carry").si())

    start(ledger, workflow)
    assert [job.result for job in jobs_of(ledger, 3)] == [{"request_id": "abc-1"}] * 3


def test_a_chord_says_that_it_needs_a_result_backend(ledger: Ledger, worker: Path) -> None:
    with pytest.raises(NotImplementedError, match="result backend"):
        start(ledger, lambda task: chord([task("add").s(1)], task("anything").s()))


@pytest.mark.parametrize("canvas", [chain, group])
def test_where_direct_calls_are_off_it_is_refused(clean: Place, canvas: Any) -> None:
    ledger = Ledger(clean.app(ALLOW_DIRECT_CALLS=False))
    with pytest.raises(ValueError, match="needs ALLOW_DIRECT_CALLS"):
        start(ledger, lambda task: canvas([task("add").s(1), task("add").s(2)]))
    assert ledger.jobs() == []


@pytest.mark.parametrize("way", ["publish", "thread", "adelay", "sync view"])
async def test_a_view_starts_what_it_has_imported(
    clean: Place, ledger: Ledger, worker: Path, *, token: str, way: str
) -> None:
    add = sample_tasks.add

    async def view() -> str:
        if way == "publish":
            return str((await publish(chain(add.s(1), add.s(2)).apply_async)).id)
        if way == "thread":
            return str((await asyncio.to_thread(add.delay, 3)).id)
        return str((await add.adelay(3)).id)

    app = clean.app()
    app.add_url_rule("/start", view_func=view if way != "sync view" else lambda: add.delay(3).id)
    async with app.test_app():
        answer = await speaking(app, token).get("/start")
        job_id = await answer.get_data(as_text=True)
    assert answer.status_code == 200
    await asyncio.to_thread(until, lambda: len(ledger.jobs()) == 1 + (way == "publish"))
    assert (await asyncio.to_thread(ledger.ended, job_id)).result == 4
