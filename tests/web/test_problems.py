"""What goes wrong is said in problem+json that names the cause, and leaves nothing behind."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from quart import Quart

from tests.conftest import Place
from tests.web.following import Served
from tests.web.test_api import ADD, count

MEGA = 1024 * 1024
JSON = {"Content-Type": "application/json"}


async def problem(answer: Any, status: int) -> dict[str, Any]:
    text = await answer.get_data(as_text=True)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), text
    assert "Traceback" not in text
    body: dict[str, Any] = json.loads(text)
    assert body.keys() >= {"type", "title", "status", "detail"}
    return body


async def test_an_unknown_path_or_id_is_404(client: Any) -> None:
    for id_ in (
        "é",
        "%00",
        "x/events",
        "x/why",
        "x" * 2000,
        "00000000-0000-7000-8000-000000000000",
    ):
        await problem(await client.get(f"/api/jobs/{id_}"), 404)
    await problem(await client.get("/nowhere"), 404)
    await problem(await client.post("/api/jobs/nothing/cancel"), 404)


async def test_an_unknown_task_is_404_and_named(client: Any) -> None:
    answer = await client.post("/api/jobs", json={"task": "tasks.background.nothing"})
    assert "tasks.background.nothing" in (await problem(answer, 404))["detail"]
    await problem(await client.post("/api/tasks/celery.chord", json={}), 404)
    assert await count(client) == 0


async def test_a_wrong_method_is_405_and_says_which_are_right(client: Any) -> None:
    answer = await client.delete("/api/jobs")
    await problem(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    answer = await client.get("/api/jobs/batch", headers={"Accept": "text/html"})
    await problem(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


BROKEN = [
    (b'{"task": ', "line 1 column 10"), (b"\xff\xfe{", "body"), (b"", "nothing"),
    (b'{"a": NaN}', "NaN"), (b"[" * 100_000, "levels"), (b"9" * 5_000, "too long"),
    (b"null", "body"), (b"[" * 200 + b"]" * 200, "levels"), (b'{"task": "\xc3"}', "position"),
]  # fmt: skip


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/batch"])
async def test_broken_json_is_400_and_says_where(client: Any, path: str) -> None:
    for body, said in BROKEN:
        answer = await client.post(path, data=body, headers=JSON)
        assert said in (await problem(answer, 400))["detail"]
    assert await count(client) == 0


@pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_415(client: Any, type_: str) -> None:
    answer = await client.post("/api/jobs", data=b"{}", headers={"Content-Type": type_})
    assert "application/json" in (await problem(answer, 415))["detail"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "task"),
    ({"task": 5}, "task"),
    ({"task": ADD, "args": 5}, "args"),
    ({"task": ADD, "kwargs": []}, "kwargs"),
    ({"task": ADD, "args": [1, 2, 3]}, "args"),
    ({"task": ADD, "args": ["one"]}, "args.0"),
    ({"task": ADD, "kwargs": {"left": {}}}, "kwargs.left"),
    ({"task": ADD, "kwargs": {}}, "kwargs.left"),
    ({"task": ADD, "args": [1], "kwargs": {"left": 1}}, "kwargs.left"),
    ({"task": ADD, "args": [1], "priority": 10}, "priority"),
    ({"task": ADD, "args": [1], "priority": "5"}, "priority"),
    ({"task": ADD, "args": [1], "priority": True}, "priority"),
    ({"task": ADD, "args": [1], "delay": -1}, "delay"),
    ({"task": ADD, "args": [1], "delay": 10**400}, "delay"),
    ({"task": ADD, "args": [1], "delay": 1, "eta": "2090-01-01T00:00:00Z"}, "delay"),
    ({"task": ADD, "args": [1], "eta": "2090-01-01T00:00:00"}, "eta"),
    ({"task": ADD, "args": [1], "eta": "9999-12-31T23:59:59-12:00"}, "eta"),
    ({"task": ADD, "args": [1], "eta": "0001-01-01T00:00:00+12:00"}, "eta"),
    ({"task": ADD, "args": [1], "eta": 5}, "eta"),
    ({"task": ADD, "args": [1], "queue": "a b"}, "queue"),
    ({"task": ADD, "args": [1], "queue": "\0"}, "queue"),
    ({"task": ADD, "args": [1], "unique_key": "\0"}, "unique_key"),
    ({"task": ADD, "args": [1], "unique_key": "\ud800"}, "unique_key"),
    ({"task": ADD, "args": [1], "unique_key": "é" * 256}, "unique_key"),
    ({"task": ADD, "args": [1], "colour": "red"}, "colour"),
    ({"task": "tests.sample_tasks.repeat", "args": ["\0"]}, "args.0"),
    ({"task": "tests.sample_tasks.repeat", "args": ["\ud800"]}, "args.0"),
    ({"task": "tests.sample_tasks.repeat", "kwargs": {"\ud800": 1}}, "kwargs"),
]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["", "keyed"])
async def test_a_wrong_value_is_422_and_named(client: Any, headers: Any) -> None:
    for body, field in WRONG:
        answer = await client.post("/api/jobs", json=body, headers=headers)
        assert (await problem(answer, 422))["field"].startswith(field)
    assert await count(client) == 0


async def test_what_is_wrong_is_said_in_the_words_of_json(client: Any) -> None:
    for wrong, said in (
        ({"kwargs": []}, "expected an object"),
        ({"queue": "x" * 101}, "at most 100 characters"),
    ):
        answer = await client.post("/api/jobs", json={"task": ADD, "args": [1], **wrong})
        assert said in (await problem(answer, 422))["detail"]


async def test_a_long_idempotency_key_is_422(client: Any) -> None:
    headers = {"Idempotency-Key": "k" * 256}
    answer = await client.post("/api/jobs", json={"task": ADD, "args": [1]}, headers=headers)
    assert (await problem(answer, 422))["field"] == "Idempotency-Key"


async def test_people_get_a_page_and_programs_do_not(client: Any) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = await client.get("/jobs/nothing", headers=browser)
    assert (page.status_code, page.mimetype) == (404, "text/html")
    await problem(await client.get("/api/jobs/nothing", headers=browser), 404)
    await problem(await client.get("/jobs/nothing", headers={"Accept": "*/*"}), 404)


async def test_a_fault_of_ours_is_500_without_its_details(app: Quart, client: Any) -> None:
    @app.get("/fault")
    async def fault() -> str:
        raise ValueError("secret details")

    said = await problem(await client.get("/fault"), 500)
    assert "secret" not in str(said)


async def test_a_database_that_is_away_is_503(tmp_path: Path, closed: str) -> None:
    url = f"mysql://u:hunter2@{closed}/x"
    place = Place("none", tmp_path, url, "unix:///nowhere")
    app = place.app()
    headers = {"Authorization": "Bearer qm_x"}
    answer = await app.test_client().get("/api/jobs", headers=headers)
    said = await problem(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert "hunter2" not in str(said)
    await app.extensions["db"].close()


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(shown.stdout) * 1024


async def in_pieces(megabytes: int) -> AsyncIterator[bytes]:
    for _ in range(megabytes):
        yield b" " * MEGA
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/batch", "/task"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_big_body_is_413_and_not_kept(
    http: httpx.AsyncClient, served: Served, path: str, chunked: bool
) -> None:
    before = memory(served.pid)
    body: Any = in_pieces(24) if chunked else b" " * 24 * MEGA
    answer = await http.post(path, content=body, headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert memory(served.pid) - before < 40 * MEGA


async def test_what_a_stranger_sends_is_not_kept(http: httpx.AsyncClient, served: Served) -> None:
    before, held = memory(served.pid), []

    async def slowly() -> AsyncIterator[bytes]:
        async for piece in in_pieces(14):
            yield piece
        held.append(memory(served.pid) - before)

    stranger = JSON | {"Authorization": "Bearer of nothing"}
    answers = await asyncio.gather(
        *(http.post("/api/jobs/batch", content=slowly(), headers=stranger) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {401}
    assert max(held) < 60 * MEGA


async def test_a_path_that_climbs_leads_nowhere(http: httpx.AsyncClient) -> None:
    for path in ("/static/../api.py", "/static/%2e%2e/api.py", "/static/..%2fapi.py"):
        assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize("inside", ["[],", "1,"], ids=["lists", "numbers"])
async def test_a_batch_of_nonsense_is_refused_by_name(client: Any, inside: str) -> None:
    body = f'{{"jobs": [{inside * 2_500_000}[]]}}'
    answer = await client.post("/api/jobs/batch", data=body, headers=JSON)
    detail = (await problem(answer, 400 if inside == "[]," else 422))["detail"]
    assert ("at most 2000000 lists and objects" in detail) == (inside == "[],")
    assert await count(client) == 0
