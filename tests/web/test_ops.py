"""What operators and their tools ask: alive, ready, and how to call the API."""

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from quart_app import __version__, db, tokens
from quart_app.models import Role
from quart_app.nodes import GONE_AFTER
from quart_app.queues import MINUTES
from tests.conftest import Place, make_token
from tests.real import eventually
from tests.web.test_api import submit


async def test_alive_needs_nothing(app: Quart) -> None:
    answer = await app.test_client().get("/healthz")
    assert (answer.status_code, await answer.get_json()) == (200, {"status": "ok"})


async def test_not_ready_names_what_is_missing(app: Quart) -> None:
    answer = await app.test_client().get("/readyz")
    said = await answer.get_json()
    assert (answer.status_code, said["status"], said["title"]) == (503, 503, "Not ready")
    assert answer.content_type == "application/problem+json"
    assert said["parts"]["database"] == said["parts"]["broker"] == "ok"
    assert "beat" in said["detail"]


async def test_a_database_and_a_broker_that_are_away_are_named(tmp_path: Path, closed: str) -> None:
    place = Place("none", tmp_path, f"mysql://u:hunter2@{closed}/x", f"redis://{closed}/0")
    answer = await place.app().test_client().get("/readyz")
    text = await answer.get_data(as_text=True)
    assert answer.status_code == 503
    assert "database" in text
    assert "broker" in text
    assert "hunter2" not in text


async def test_a_worker_is_shown_with_what_it_runs(client: Any, worker: Path) -> None:
    job = await submit(client, "tests.sample_tasks.count", kwargs={"steps": 100, "pause": 0.1})
    shown = await eventually(lambda: busy(client))
    running = {name: shown["jobs"][0][name] for name in ("id", "task", "attempt")}
    assert running == {"id": job["id"], "task": "tests.sample_tasks.count", "attempt": 1}
    assert (shown["queues"], shown["pool"], shown["concurrency"]) == (["celery"], "prefork", 2)
    assert (shown["version"], shown["celery"]) == (__version__, metadata.version("celery"))
    assert shown["name"] == (await shown_job(client, job["id"]))["worker"]
    assert 0 <= shown["age"] < GONE_AFTER
    await client.post(f"/api/jobs/{job['id']}/cancel")


async def test_a_queue_is_shown_with_its_depth_and_its_oldest_job(client: Any) -> None:
    first = await submit(client, queue="mail")
    options: list[dict[str, Any]] = [{}, {"delay": 60}]
    for more in options:
        await submit(client, queue="mail", **more)
    (mail,) = [queue for queue in await items(client, "queues") if queue["name"] == "mail"]
    assert 0 <= mail["oldest"].pop("age") < 60
    assert mail == {
        "name": "mail", "depth": 2, "scheduled": 1, "retrying": 0, "running": 0, "workers": 0,
        "in_per_minute": 3 / MINUTES, "out_per_minute": 0.0,
        "oldest": {"id": first["id"], "accepted_at": first["accepted_at"]},
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/api/workers", "/api/queues", "/metrics", "/openapi.json", "/docs/swagger-ui/swagger-ui.css"],
)
async def test_a_viewer_may_look_until_the_token_is_revoked(app: Quart, path: str) -> None:
    headers = {"Authorization": f"Bearer {make_token(app.extensions['db'], Role.VIEWER)}"}
    client = app.test_client()
    assert (await client.get(path)).status_code == 401
    assert (await client.get(path, headers=headers)).status_code == 200
    async with app.app_context():
        await db.run(tokens.revoke, "viewer")
    assert (await client.get(path, headers=headers)).status_code == 401


async def items(client: Any, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await (await client.get(f"/api/{what}")).get_json())["items"]
    return found


async def busy(client: Any) -> Any:
    return next((one for one in await items(client, "workers") if one["jobs"]), None)


async def shown_job(client: Any, job_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = await (await client.get(f"/api/jobs/{job_id}")).get_json()
    return shown


async def test_the_api_is_described(client: Any) -> None:
    whole = await (await client.get("/openapi.json")).get_json()
    add = whole["paths"]["/api/tasks/tests.sample_tasks.add"]["post"]
    assert whole["openapi"].startswith("3.1")
    assert add["requestBody"]["content"]["application/json"]["schema"]["required"] == ["left"]
    assert not [path for path in whole["paths"] if path.startswith(("/jobs", "/sms", "/sign"))]
    for reference in references(whole):
        assert found(whole, reference), reference


async def test_each_operation_has_a_name_of_its_own_and_answers(client: Any) -> None:
    whole = await (await client.get("/openapi.json")).get_json()
    operations = [one for path in whole["paths"].values() for one in path.values()]
    assert all(operation["responses"] for operation in operations)
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [reference for inner in value for reference in references(inner)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + references(list(value.values()))


def found(whole: Any, reference: str) -> bool:
    for name in reference.removeprefix("#/").split("/"):
        whole = whole.get(name)
        if whole is None:
            return False
    return True
