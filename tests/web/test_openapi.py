"""The API's description tells the truth: examples are accepted, answers come as described."""

from typing import Any

import pytest
from pydantic import BaseModel
from quart import Quart

from quart_app import attempts, nodes
from quart_app.celeryext import in_app_context
from quart_app.db import Database
from quart_app.web import answers
from tests.book import ADD
from tests.web.test_api import submit

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
TASKS = "/api/tasks/"


@pytest.fixture
async def whole(client: Any) -> dict[str, Any]:
    described: dict[str, Any] = await (await client.get("/openapi.json")).get_json()
    return described


def operations(whole: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in whole["paths"].items()
        for method, operation in methods.items()
    ]


async def test_each_answer_is_described_with_its_content(whole: dict[str, Any]) -> None:
    for path, method, operation in operations(whole):
        for status, answer in operation["responses"].items():
            where = f"{method} {path} {status}"
            assert answer["description"], where
            if status >= "400":
                assert answer["content"] == PROBLEM, where
            else:
                assert answer.get("content") or status == "204", where


async def test_what_needs_a_token_says_so_and_what_changes_needs_a_role(
    whole: dict[str, Any],
) -> None:
    for path, method, operation in operations(whole):
        statuses = operation["responses"].keys()
        assert ("401" in statuses) == (path not in ("/healthz", "/readyz")), path
        assert ("403" in statuses) == (method != "get" or path == "/api/audit"), path
        assert ("404" in statuses) >= ("{" in path), path
        assert ("415" in statuses) == ("requestBody" in operation), path


async def test_what_makes_one_job_takes_an_idempotency_key(whole: dict[str, Any]) -> None:
    keyed = {
        path
        for path, _, operation in operations(whole)
        if any(each["name"] == "Idempotency-Key" for each in operation["parameters"])
    }
    run = "/api/schedules/{schedule_id}/run"
    ours = {"/task", "/api/jobs", "/api/jobs/{job_id}/retry", run}
    assert keyed == ours | {path for path in whole["paths"] if path.startswith(TASKS)}
    for path in keyed:
        assert {"409", "422"} <= whole["paths"][path]["post"]["responses"].keys(), path


async def test_what_is_not_json_says_so(whole: dict[str, Any]) -> None:
    def types(path: str, method: str, status: str) -> set[str]:
        return set(whole["paths"][path][method]["responses"][status]["content"])

    assert types("/task", "post", "202") == {"text/plain"}
    assert types("/metrics", "get", "200") == {"text/plain", "application/openmetrics-text"}
    events = types("/api/jobs/{job_id}/events", "get", "200")
    assert events == {"application/json", "text/event-stream"}
    path = whole["paths"]["/api/jobs/{job_id}/events"]["get"]
    assert path["responses"]["204"] == {"description": "No Content"}


async def test_the_example_of_each_task_is_accepted(client: Any, whole: dict[str, Any]) -> None:
    tasks = [path for path in whole["paths"] if path.startswith(TASKS)]
    assert len(tasks) > 20
    for path in tasks:
        (content,) = whole["paths"][path]["post"]["requestBody"]["content"].values()
        answer = await client.post(path, json=content["example"])
        assert answer.status_code == 202, (path, await answer.get_data())


async def test_a_task_with_one_model_is_described_by_its_fields(whole: dict[str, Any]) -> None:
    path = f"{TASKS}tests.sample_tasks.deliver"
    (content,) = whole["paths"][path]["post"]["requestBody"]["content"].values()
    assert content["schema"]["properties"].keys() == {"item", "count", "at", "due"}
    assert content["example"] == {"item": "tea"}


async def test_the_models_of_two_tasks_are_told_apart(whole: dict[str, Any]) -> None:
    schemas = whole["components"]["schemas"]
    assert schemas.keys() >= {"tests.sample_tasks.typed.Point", "tests.sample_tasks.deliver.Point"}
    assert schemas["Job"]["properties"].keys() == answers.Job.model_fields.keys()


def seen(app: Quart, job_id: str) -> None:
    """A worker that runs the job."""

    def look(database: Database) -> None:
        with database.session() as session:
            nodes.seen(session, "w:1", "worker", "boot", {"hostname": "w", "queues": ["celery"]})
            assert attempts.claim(session, job_id, ADD, "w", 60.0, holder="boot/1")

    in_app_context(app, lambda: look(app.extensions["db"]))


async def test_answers_come_as_described(client: Any, app: Quart) -> None:
    runs, waits = await submit(client), await submit(client, unique_key="k", delay=60)
    seen(app, runs["id"])
    one = f"/api/jobs/{waits['id']}"
    expected: list[tuple[str, str, type[BaseModel], Any]] = [
        ("get", "/api/jobs", answers.Jobs, None),
        ("get", one, answers.Job, None),
        ("get", f"/api/jobs/{runs['id']}", answers.Job, None),
        ("get", f"{one}/events", answers.Events, None),
        ("get", f"{one}/why", answers.Why, None),
        ("get", "/api/tasks", answers.Tasks, None),
        ("get", "/api/workers", answers.Workers, None),
        ("get", "/api/queues", answers.Queues, None),
        ("get", "/healthz", answers.Alive, None),
        ("post", "/api/jobs", answers.Job, {"task": ADD, "args": [1], "unique_key": "k"}),
        ("post", "/api/jobs/batch", answers.Ids, {"jobs": [{"task": ADD, "args": [1]}]}),
        ("post", "/api/jobs/cancel", answers.Counts, {"task": ADD, "dry_run": True}),
        ("post", f"{one}/cancel", answers.Job, None),
        ("post", f"{one}/retry", answers.Job, {"args": [2], "kwargs": {}}),
    ]
    for method, path, model, body in expected:
        answer = await getattr(client, method)(path, **({"json": body} if body else {}))
        model.model_validate(await answer.get_json(), strict=False)
