"""The HTTP API: what it takes, what it answers, and how lists are paged and filtered."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from quart import Quart

from quart_app.models import Role
from tests.conftest import Place, caller
from tests.real import eventually

ADD = "tests.sample_tasks.add"


async def submit(client: Any, task: str = ADD, **body: Any) -> dict[str, Any]:
    answer = await client.post("/api/jobs", json={"task": task, "kwargs": {"left": 1}} | body)
    assert answer.status_code == 202, await answer.get_data()
    job: dict[str, Any] = await answer.get_json()
    return job


async def listed(client: Any, query: str = "", **filters: Any) -> dict[str, Any]:
    given = {"query_string": filters} if filters else {}
    answer = await client.get(f"/api/jobs{query}", **given)
    assert answer.status_code == 200, await answer.get_data()
    page: dict[str, Any] = await answer.get_json()
    return page


async def count(client: Any) -> int:
    return len((await listed(client, "?limit=500"))["items"])


async def test_the_study_guides_route_answers_with_the_id_as_plain_text(client: Any) -> None:
    answer = await client.post("/task")
    id_ = await answer.get_data(as_text=True)
    assert (answer.status_code, answer.mimetype) == (202, "text/plain")
    job = await (await client.get(f"/api/jobs/{id_}")).get_json()
    assert job["task"] == "tasks.background.async_send_sms"


async def test_the_study_guides_route_takes_a_number_and_a_text(client: Any) -> None:
    answer = await client.post("/task", json={"to": "+8613800138000", "text": "你好 🎉"})
    job = await (await client.get(answer.headers["Location"])).get_json()
    assert job["kwargs"] == {"to": "+8613800138000", "text": "你好 🎉"}


async def test_the_study_guides_route_names_what_is_wrong(client: Any) -> None:
    wrong: list[tuple[str, Any]] = [
        ("to", {"to": 5}), ("too", {"too": "x"}), ("body", []), ("to", {"to": "x"}),
        ("text", {"to": "+8613800138000"}),
    ]  # fmt: skip
    for field, body in wrong:
        answer = await client.post("/task", json=body)
        assert answer.status_code == 422
        assert (await answer.get_json())["field"] == field
    assert await count(client) == 0


async def test_a_submitted_job_is_shown_at_its_location(client: Any) -> None:
    answer = await client.post("/api/jobs", json={"task": ADD, "args": [1], "priority": 3})
    job = await answer.get_json()
    assert answer.headers["Location"] == f"/api/jobs/{job['id']}"
    shown = await (await client.get(answer.headers["Location"])).get_json()
    assert (shown["args"], shown["priority"]) == ([1], 3)
    assert shown.keys() >= {"progress", "result", "error", "accepted_at", "worker", "eta"}


async def test_a_delayed_job_is_scheduled_and_has_its_time(client: Any) -> None:
    job = await submit(client, delay=60)
    assert job["state"] == "scheduled"
    wait = datetime.fromisoformat(job["eta"]) - datetime.fromisoformat(job["accepted_at"])
    assert wait == timedelta(seconds=60)


async def test_an_eta_in_any_offset_is_answered_in_utc(client: Any) -> None:
    job = await submit(client, eta="2090-01-01T08:00:00+08:00")
    assert job["eta"] == "2090-01-01T00:00:00.000000Z"


async def test_the_same_idempotency_key_gives_the_same_job(client: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"task": ADD, "args": [1]}
    first = await client.post("/api/jobs", json=body, headers=headers)
    second = await client.post("/api/jobs", json=body, headers=headers)
    other = await client.post("/api/jobs", json={"task": ADD, "args": [2]}, headers=headers)
    assert (await first.get_json())["id"] == (await second.get_json())["id"]
    assert other.status_code == 409


async def test_the_study_guides_route_with_the_same_idempotency_key_gives_the_same_job(
    client: Any,
) -> None:
    headers, body = {"Idempotency-Key": "once"}, {"to": "+12015550123", "text": "one"}
    ids = {await (await client.post("/task", json=body, headers=headers)).data for _ in range(2)}
    assert len(ids) == await count(client) == 1
    other = await client.post("/task", json=body | {"text": "two"}, headers=headers)
    assert other.status_code == 409


async def test_the_same_unique_key_gives_the_live_job(client: Any) -> None:
    first = await submit(client, unique_key="k", delay=60)
    second = await submit(client, unique_key="k")
    assert second["id"] == first["id"]
    assert second["duplicate"] is True
    assert "duplicate" not in first


async def test_an_idempotency_key_is_kept_where_a_live_job_is_the_answer(client: Any) -> None:
    live = await submit(client, unique_key="k", delay=60)
    body, headers = {"task": ADD, "args": [1], "unique_key": "k"}, {"Idempotency-Key": "once"}
    for _ in range(2):
        answer = await client.post("/api/jobs", json=body, headers=headers)
        job = await answer.get_json()
        assert (answer.status_code, job["id"], job["duplicate"]) == (202, live["id"], True)
        await client.post(f"/api/jobs/{live['id']}/cancel")
    other = await client.post("/api/jobs", json=body | {"args": [2]}, headers=headers)
    assert other.status_code == 409


async def test_a_task_is_submitted_by_its_name(client: Any) -> None:
    answer = await client.post(f"/api/tasks/{ADD}", json={"left": 1, "right": 2})
    job = await answer.get_json()
    assert answer.status_code == 202
    assert (job["task"], job["kwargs"]) == (ADD, {"left": 1, "right": 2})


async def test_tasks_are_listed_with_their_parameters(client: Any) -> None:
    tasks = (await (await client.get("/api/tasks")).get_json())["items"]
    add = next(task for task in tasks if task["name"] == ADD)
    assert add["doc"] == "Adds two numbers."
    assert add["queue"] == "celery"
    assert add["parameters"]["required"] == ["left"]


async def test_the_schema_of_each_task_is_made_once(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await (await client.get("/api/tasks")).get_json()
    monkeypatch.delattr(BaseModel, "model_json_schema")
    assert await (await client.get("/api/tasks")).get_json() == first


async def test_a_task_is_listed_with_the_queue_that_celerys_routes_give_it(clean: Place) -> None:
    app = clean.app(CELERY_TASK_ROUTES={ADD: {"queue": "routed"}})
    async with app.test_app():
        tasks = await (await caller(app, Role.VIEWER).get("/api/tasks")).get_json()
    assert {task["queue"] for task in tasks["items"] if task["name"] == ADD} == {"routed"}


async def test_a_batch_is_accepted_in_its_order(client: Any) -> None:
    wanted = [{"task": ADD, "args": [number]} for number in range(20)]
    answer = await client.post("/api/jobs/batch", json={"jobs": wanted})
    ids = (await answer.get_json())["ids"]
    page = await listed(client)
    assert answer.status_code == 202
    assert [job["id"] for job in page["items"]] == ids[::-1]
    assert [job["args"] for job in page["items"]] == [[n] for n in reversed(range(20))]


async def test_a_batch_with_one_bad_job_leaves_none(client: Any) -> None:
    wanted = [{"task": ADD, "args": [1]}, {"task": ADD, "args": ["one"]}]
    answer = await client.post("/api/jobs/batch", json={"jobs": wanted})
    assert answer.status_code == 422
    assert await count(client) == 0


@pytest.mark.parametrize(("jobs", "field"), [([], "jobs"), ([{"task": 5}], "jobs.0.task")])
async def test_a_senseless_batch_is_refused(client: Any, jobs: Any, field: str) -> None:
    answer = await client.post("/api/jobs/batch", json={"jobs": jobs})
    assert answer.status_code == 422
    assert (await answer.get_json())["field"] == field


async def test_a_batch_of_more_than_ten_thousand_is_refused(client: Any) -> None:
    wanted = [{"task": ADD, "args": [1]}] * 10_001
    answer = await client.post("/api/jobs/batch", json={"jobs": wanted})
    assert answer.status_code == 422
    assert (await answer.get_json())["field"] == "jobs"


async def test_a_batch_takes_no_idempotency_key(client: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    answer = await client.post("/api/jobs/batch", json={"jobs": [{"task": ADD}]}, headers=headers)
    assert answer.status_code == 422
    assert (await answer.get_json())["field"] == "Idempotency-Key"
    assert await count(client) == 0


async def test_a_big_batch_holds_nobody_up(http: httpx.AsyncClient) -> None:
    wanted = [{"task": ADD, "args": [number], "delay": 3600} for number in range(10_000)]
    batch = asyncio.create_task(http.post("/api/jobs/batch", json={"jobs": wanted}))
    answered = 0
    while not batch.done():
        await http.get("/healthz")
        answered += 1
    assert len(set((await batch).json()["ids"])) == 10_000
    assert answered > 3  # one at most, if it held the loop


async def test_a_list_is_paged_newest_first_to_its_end(client: Any) -> None:
    ids = [(await submit(client))["id"] for _ in range(4)]
    first = await listed(client, "?limit=2")
    second = await listed(client, f"?limit=2&cursor={first['next']}")
    assert [job["id"] for job in first["items"] + second["items"]] == ids[::-1]
    assert second["next"] is None


async def test_lists_are_filtered(client: Any) -> None:
    late = await submit(client, delay=60, queue="slow")
    text = await submit(client, "tests.sample_tasks.repeat", kwargs={"text": "50% Größe 你好"})
    found = [
        ({"state": "scheduled"}, late), ({"queue": "slow"}, late), ({"task": ADD}, late),
        ({"q": "你好"}, text), ({"q": "50% größe"}, text), ({"since": text["accepted_at"]}, text),
    ]  # fmt: skip
    for filters, job in found:
        page = await listed(client, **filters)
        assert [item["id"] for item in page["items"]] == [job["id"]], filters
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert (await listed(client, until=yesterday.isoformat()))["items"] == []


SENSELESS = [
    "state=nonsense", "state=", "limit=0", "limit=501", "limit=x", "limit=1&limit=2",
    "since=yesterday", "since=12", "since=2026-01-01T00:00:00", "until=0001-01-01T00:00:00Z",
    "until=9999-12-31T23:59:59-12:00", "cursor=x", "q=%00", "task=%00", "colour=red",
]  # fmt: skip


async def test_a_senseless_filter_is_refused_by_name(client: Any) -> None:
    for query in SENSELESS:
        answer = await client.get(f"/api/jobs?{query}")
        assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
        assert (await answer.get_json())["field"].startswith(query.partition("=")[0])


async def test_events_after_a_seq_are_listed(client: Any) -> None:
    job = await submit(client, delay=60)
    await client.post(f"/api/jobs/{job['id']}/cancel")
    path = f"/api/jobs/{job['id']}/events"
    everything = (await (await client.get(path)).get_json())["items"]
    rest = (await (await client.get(f"{path}?after=1")).get_json())["items"]
    assert [(e["seq"], e["state"]) for e in everything] == [(1, "scheduled"), (2, "cancelled")]
    assert rest == everything[1:]


async def test_a_job_is_explained(client: Any) -> None:
    job = await submit(client, delay=60)
    said = await (await client.get(f"/api/jobs/{job['id']}/why")).get_json()
    assert said.pop("detail").startswith("It waits for its time, ")
    assert said == {"reason": "not_due", "until": job["eta"]}


async def test_a_cancelled_job_is_retried_and_goes_on(client: Any) -> None:
    job = await submit(client, delay=60)
    path = f"/api/jobs/{job['id']}"
    cancelled = await client.post(f"{path}/cancel")
    retried = await client.post(f"{path}/retry")
    assert (cancelled.status_code, retried.status_code) == (202, 202)
    assert (await cancelled.get_json())["state"] == "cancelled"
    assert (await retried.get_json())["state"] == "queued"


async def test_what_the_state_does_not_allow_is_a_conflict(client: Any) -> None:
    job = await submit(client, delay=60)
    path = f"/api/jobs/{job['id']}"
    assert (await client.post(f"{path}/retry")).status_code == 409
    await client.post(f"{path}/cancel")
    assert (await client.post(f"{path}/cancel")).status_code == 409


async def test_a_full_queue_answers_429_with_a_time(clean: Place) -> None:
    app: Quart = clean.app(MAX_QUEUE_DEPTH=2)
    async with app.test_app():
        client = caller(app, Role.OPERATOR)
        await submit(client)
        await submit(client)
        answer = await client.post("/api/jobs", json={"task": ADD, "args": [1]})
        assert (answer.status_code, answer.mimetype) == (429, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0


async def test_a_job_is_published_soon(client: Any) -> None:
    job = await submit(client)

    async def published() -> bool:
        shown = await (await client.get(f"/api/jobs/{job['id']}")).get_json()
        return shown["published_at"] is not None

    await eventually(published, 5)
