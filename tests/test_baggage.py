"""One id follows a request through the web, its jobs, their tasks and what those ask of others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from quart import Quart

from quart_app import baggage
from quart_app.baggage import Baggage
from settings import broker_url
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SENT = {"X-Request-ID": "abc-1", "traceparent": TRACE, "Accept-Language": "zh-CN, en;q=0.5"}
CARRIED = {"request_id": "abc-1", "user": "operator", "locale": "zh-CN", "traceparent": TRACE}
CARRY = "tests.sample_tasks.carry"


@pytest.fixture
def stranger(clean: Place) -> Iterator[Celery]:
    """Some other Celery client."""
    with Celery("stranger", broker=broker_url(clean.redis_url), set_as_current=False) as client:
        yield client


async def test_an_answer_names_its_request(client: Any) -> None:
    answer = await client.get("/api/jobs", headers=SENT)
    assert answer.headers["X-Request-ID"] == "abc-1"


async def test_a_request_without_an_id_is_given_one(client: Any) -> None:
    first, second = [(await client.get("/healthz")).headers["X-Request-ID"] for _ in range(2)]
    assert len(first) == 36
    assert first != second


@pytest.mark.parametrize("bad", ["", "two words", "x" * 129, "é", "<script>"])
async def test_an_id_that_makes_no_sense_is_replaced(client: Any, bad: str) -> None:
    answer = await client.get("/healthz", headers={"X-Request-ID": bad})
    assert len(answer.headers["X-Request-ID"]) == 36


@pytest.mark.parametrize(
    "bad",
    [
        TRACE.upper(),
        TRACE.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        f"{TRACE}\nX-Forged: 1",
    ],
)
def test_a_trace_that_makes_no_sense_is_left_behind(bad: str) -> None:
    assert baggage.unpack({"traceparent": bad, "request_id": "r"}) == Baggage(request_id="r")


def test_what_is_not_text_is_left_behind() -> None:
    assert (
        baggage.unpack({"request_id": 1, "user": ["x"], "locale": None, "more": "x"}) == Baggage()
    )


def test_outside_a_context_nothing_travels() -> None:
    assert baggage.current() == Baggage()


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/batch", f"/api/tasks/{CARRY}", "/task"])
async def test_each_way_to_submit_keeps_what_travels(app: Quart, client: Any, path: str) -> None:
    job = {"task": CARRY}
    bodies = {"/api/jobs": job, "/api/jobs/batch": {"jobs": [job]}}
    answer = await client.post(path, json=bodies.get(path, {}), headers=SENT)
    assert answer.status_code == 202
    (kept,) = Ledger(app).jobs()
    assert kept.context == CARRIED


async def test_the_jobs_page_shows_what_travelled(client: Any) -> None:
    answer = await client.post("/task", headers=SENT)
    page = await (await client.get(f"/jobs/{await answer.get_data(as_text=True)}")).get_data(True)
    assert all(value in page for value in CARRIED.values())


def test_a_task_and_the_jobs_it_makes_see_what_travelled(ledger: Ledger, worker: Path) -> None:
    job_id = ledger.submit("carry_on", baggage=Baggage(**CARRIED))
    own, child = ledger.ended(job_id).result or ({}, "")
    assert own == CARRIED
    assert ledger.ended(child).result == CARRIED


def test_each_line_of_a_task_names_its_job_and_its_request(ledger: Ledger, worker: Path) -> None:
    job_id = ledger.submit("carry", baggage=Baggage(**CARRIED))
    ledger.ended(job_id)
    about = f"[job {job_id} request abc-1] "
    until(lambda: f"{about}by a logger of any module" in worker.read_text())
    until(lambda: f"{about}{CARRY}: by the logger of Celery" in worker.read_text())


def test_a_job_by_itself_carries_nothing(ledger: Ledger, worker: Path) -> None:
    assert ledger.ended(ledger.submit("carry")).result == {}


def test_a_message_of_another_client_may_carry_it(
    ledger: Ledger, stranger: Celery, worker: Path
) -> None:
    job_id = stranger.send_task(CARRY, headers=CARRIED | {"locale": "not a locale"}).id
    until(ledger.jobs)
    known = {name: value for name, value in CARRIED.items() if name != "locale"}
    assert ledger.ended(job_id).result == known


def test_it_goes_with_the_messages_of_direct_calls_too(ledger: Ledger, worker: Path) -> None:
    job_id = ledger.submit("carry_directly", baggage=Baggage(**CARRIED))
    ledger.ended(job_id)
    until(lambda: len(ledger.jobs()) == 2)
    child = next(job for job in ledger.jobs() if job.id != job_id)
    assert ledger.ended(child.id).result == CARRIED
