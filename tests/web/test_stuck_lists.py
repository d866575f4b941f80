"""Lists while the database does not answer: they say so in time, and hold up nothing else."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import event

from tests.real import eventually, until
from tests.web.test_problems import problem

_LOOKS = ("ORDER BY jobs.accepted_at DESC", "GROUP BY jobs.queue")


class Stuck:
    """What looks for jobs, or for queues, waits until it is let go."""

    def __init__(self) -> None:
        self.count, self._is_over = 0, threading.Event()

    def look(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if any(each in statement for each in _LOOKS):
            self.count += 1
            self._is_over.wait()

    async def reaches(self, count: int) -> bool:
        return self.count >= count

    def let_go(self) -> None:
        self._is_over.set()


@pytest.fixture
def stuck(app: Quart) -> Iterator[Stuck]:
    stuck, engine = Stuck(), app.extensions["db"].engine
    event.listen(engine, "before_cursor_execute", stuck.look)
    yield stuck
    stuck.let_go()
    until(lambda: engine.pool.checkedout() == 0)  # what it looks with is closed with the rest


@pytest.mark.parametrize("path", ["/api/jobs", "/jobs", "/api/queues", "/queues"])
async def test_a_list_that_is_not_found_in_time_is_answered_with_503(
    app: Quart, client: Any, stuck: Stuck, path: str
) -> None:
    app.config["REQUEST_PATIENCE"] = 0.2
    answer = await client.get(path)
    assert (await problem(answer, 503))["title"] == "Service Unavailable"
    assert answer.headers["Retry-After"] == "2"
    stuck.let_go()


async def test_lists_that_are_stuck_stop_no_file(app: Quart, client: Any, stuck: Stuck) -> None:
    asking = [asyncio.create_task(client.get("/api/jobs")) for _ in range(40)]
    await eventually(lambda: stuck.reaches(6))
    async with asyncio.timeout(10):
        assert (await client.get("/static/job.js")).status_code == 200
    stuck.let_go()
    assert {(await each).status_code for each in asking} == {200}
