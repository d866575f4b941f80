"""Metrics, read as Prometheus reads them from what is really scraped."""

import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from quart_app import __version__
from quart_app.models import Role
from tests.conftest import Place, caller
from tests.real import eventually
from tests.web.following import Hand, Served, connect, on_one_database
from tests.web.test_api import ADD, submit

OPEN = "application/openmetrics-text; version=1.0.0"
#: What Prometheus 2 and 3 send.
ACCEPT = f"{OPEN},text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


class Scrape:
    """One exposition: samples by name and by some of their labels."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in parse(text)}
        self.samples = [one for family in self.families.values() for one in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        mine = (one for one in self.samples if one.name == f"quartermaster_{name}")
        return sum(one.value for one in mine if labels.items() <= one.labels.items())


async def scrape(client: Any) -> Scrape:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, await answer.get_data()
    assert answer.mimetype == "text/plain"
    return Scrape(await answer.get_data(as_text=True))


async def test_what_has_not_ended_is_counted_by_task_queue_and_state(client: Any) -> None:
    await submit(client, queue="mail")
    await submit(client, queue="mail", delay=60)
    seen = await scrape(client)
    assert seen.value("jobs", task=ADD, state="queued") == 1
    assert seen.value("queue_jobs", queue="mail", state="scheduled") == 1
    assert 0 < seen.value("queue_oldest_seconds", queue="mail") < 60
    assert seen.value("queue_workers", queue="mail") == 0


async def test_each_job_that_ended_is_counted_once(client: Any, hand: Hand) -> None:
    assert (await scrape(client)).value("jobs_ended_total") == 0
    for count in (1, 2):
        await hand.whole_job()
        seen = await scrape(client)
        assert seen.value("jobs_ended_total", state="succeeded") == count
        assert seen.value("job_waiting_seconds_count", queue="by.hand") == count
        assert seen.value("job_running_seconds_count") == count
        assert 0 < seen.value("job_running_seconds_sum") < 60
    assert (await scrape(client)).value("jobs_ended_total") == 2


async def test_of_any_number_of_queues_a_hundred_are_told_apart(client: Any, hand: Hand) -> None:
    jobs = [{"task": ADD, "args": [1], "queue": f"made.up.{number}"} for number in range(150)]
    assert (await client.post("/api/jobs/batch", json={"jobs": jobs})).status_code == 202
    await scrape(client)
    await hand.whole_job()
    await submit(client)
    seen = await scrape(client)
    labels = {one.labels["queue"] for one in seen.samples if "queue" in one.labels}
    assert len(labels - {"celery", "(others)"}) == 100
    assert seen.value("queue_jobs") == 151
    assert seen.value("queue_jobs", queue="celery") == 1
    assert seen.value("queue_jobs", queue="(others)") == 50
    assert seen.value("queue_oldest_seconds", queue="(others)") > 0
    assert seen.value("job_waiting_seconds_count", queue="(others)") == 1


async def test_what_is_known_begins_at_zero(client: Any) -> None:
    names = {one.name for one in (await scrape(client)).samples if one.labels.get("task") == ADD}
    assert "quartermaster_jobs_ended_total" in names
    assert "quartermaster_job_running_seconds_count" in names


async def test_what_ended_before_the_process_began_is_not_counted(clean: Place, hand: Hand) -> None:
    await hand.whole_job()
    app = clean.app()
    async with app.test_app():
        seen = await scrape(caller(app, Role.VIEWER))
    assert seen.value("jobs_ended_total") == 0


async def test_a_job_that_never_ran_counts_no_time(client: Any) -> None:
    job = await submit(client, delay=60)
    await client.post(f"/api/jobs/{job['id']}/cancel")
    seen = await scrape(client)
    assert seen.value("jobs_ended_total", state="cancelled") == 1
    assert seen.value("job_waiting_seconds_count") == 0


async def test_those_who_are_online_are_counted(client: Any, worker: Path) -> None:
    async def is_there() -> bool:
        return (await scrape(client)).value("nodes_online", kind="worker") == 1

    await eventually(is_there)
    seen = await scrape(client)
    assert seen.value("nodes_online", kind="beat") == 0
    assert seen.value("queue_workers", queue="celery") == 1


async def test_a_loop_that_was_held_up_shows_it(client: Any) -> None:
    time.sleep(0.6)  # what no view should ever do

    async def seen() -> bool:
        lag = await scrape(client)
        slow = lag.value("event_loop_lag_seconds_count")
        return slow - lag.value("event_loop_lag_seconds_bucket", le="0.1") >= 1

    await eventually(seen)


async def test_what_the_broker_did_not_take_is_counted(clean: Place, closed: str) -> None:
    nowhere = f"redis://{closed}/0"
    app = clean.app(REDIS_URL=nowhere, CELERY_BROKER_URL=nowhere)
    async with app.test_app():
        client: Any = caller(app, Role.OPERATOR)
        await submit(client)
        await eventually(lambda: both_failed(client))


async def both_failed(client: Any) -> bool:
    seen = await scrape(client)
    kinds = ("messages", "frames")
    return all(seen.value("publish_failures_total", what=what) for what in kinds)


@on_one_database
async def test_a_scrape_is_in_the_format_that_was_asked_for(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics", headers={"Accept": ACCEPT})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_open(answer.text)}
    assert families["quartermaster_jobs_ended"].type == "counter"
    assert families["quartermaster"].samples[0].labels["version"] == __version__
    assert all(family.documentation for family in families.values())
    assert "process_resident_memory_bytes" in families


@on_one_database
async def test_open_sockets_are_counted(
    served: Served, http: httpx.AsyncClient, secret: str, hand: Hand
) -> None:
    job_id = await hand.start()

    async def sockets() -> float:
        return Scrape((await http.get("/metrics")).text).value("sockets_open")

    async with connect(served, job_id, secret) as socket:
        await socket.recv()
        assert await sockets() == 1
    await eventually(lambda: is_zero(sockets()))


async def is_zero(figure: Awaitable[float]) -> bool:
    return await figure == 0
