"""What operators and their tools ask: alive, ready, and how to call the API."""

from pathlib import Path
from typing import Any

from quart import Quart

from tests import real
from tests.conftest import Place


async def test_alive_needs_nothing(app: Quart) -> None:
    answer = await app.test_client().get("/healthz")
    assert (answer.status_code, await answer.get_json()) == (200, {"status": "ok"})


async def test_not_ready_names_what_is_missing(app: Quart) -> None:
    answer = await app.test_client().get("/readyz")
    said = await answer.get_json()
    assert answer.status_code == 503
    assert said["parts"]["database"] == said["parts"]["broker"] == "ok"
    assert "beat" in said["status"]


async def test_a_database_and_a_broker_that_are_away_are_named(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{real.free_port()}"
    place = Place("none", tmp_path, f"mysql://u:hunter2@{nowhere}/x", f"redis://{nowhere}/0")
    answer = await place.app().test_client().get("/readyz")
    text = await answer.get_data(as_text=True)
    assert answer.status_code == 503
    assert "database" in text
    assert "broker" in text
    assert "hunter2" not in text


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
