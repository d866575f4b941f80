"""Schedules over HTTP: what is taken and answered, by whom, and what is refused."""

from datetime import datetime
from typing import Any

import pytest
from quart import Quart

from quart_app import schedules, tokens
from quart_app.models import Role
from tests.conftest import Caller, caller
from tests.web.test_api import ADD, count
from tests.web.test_problems import problem

ALL = "/api/schedules"


@pytest.fixture
async def given(app: Quart) -> str:
    return await adopt_one(app)


async def adopt_one(app: Quart) -> str:
    """The path of a new schedule that comes from settings."""
    async with app.app_context():
        with app.extensions["db"].session() as session:
            entry = {"task": ADD, "args": [1], "schedule": 60}
            schedules.adopt_settings(session, {"given": entry}, "UTC")
            return f"{ALL}/{schedules.named(session, 'given').id}"


async def make(admin: Any, **fields: Any) -> dict[str, Any]:
    rule = {} if "cron" in fields or "interval" in fields else {"interval": 3600}
    body = {"name": "mine", "task": ADD, "args": [1]} | rule | fields
    answer = await admin.post(ALL, json=body)
    made: dict[str, Any] = await answer.get_json()
    assert answer.status_code == 201, made
    assert answer.headers["Location"] == f"{ALL}/{made['id']}"
    return made


async def ask(client: Any, method: str, path: str, status: int = 200, **given: Any) -> Any:
    answer = await getattr(client, method)(path, **given)
    assert answer.status_code == status, await answer.get_data(as_text=True)
    return await answer.get_json()


async def test_a_schedule_is_made_shown_and_listed(admin: Any, client: Any) -> None:
    made = await make(admin, kwargs={"right": 2}, queue="q", cron="*/5 * * * *", missed="all")
    assert made.items() >= {
        "name": "mine", "task": ADD, "args": [1], "kwargs": {"right": 2}, "queue": "q",
        "cron": "*/5 * * * *", "interval": None, "missed": "all", "paused": False,
        "source": "api", "timezone": "Asia/Shanghai", "starts_at": None, "ends_at": None,
    }.items()  # fmt: skip
    assert datetime.fromisoformat(made["next_at"]).minute % 5 == 0
    assert made["next_at"].endswith("Z")
    assert await ask(client, "get", f"{ALL}/{made['id']}") == made
    assert await ask(client, "get", ALL) == {"items": [made]}


async def test_times_in_any_offset_are_answered_in_utc(admin: Any) -> None:
    made = await make(admin, starts_at="2090-01-01T08:00:00+08:00", ends_at="2091-01-01T00:00:00Z")
    assert made["starts_at"] == made["next_at"] == "2090-01-01T00:00:00.000000Z"
    assert made["ends_at"] == "2091-01-01T00:00:00.000000Z"


async def test_a_change_is_answered_and_stays(admin: Any) -> None:
    made = await make(admin)
    path = f"{ALL}/{made['id']}"
    changed = await ask(admin, "patch", path, json={"cron": "@daily", "timezone": "UTC"})
    assert (changed["cron"], changed["interval"], changed["args"]) == ("@daily", None, [1])
    assert changed["next_at"].endswith("T00:00:00.000000Z")
    assert await ask(admin, "get", path) == changed
    assert await ask(admin, "patch", path, json={}) == changed
    cleared = await ask(admin, "patch", path, json={"timezone": None, "queue": None})
    assert cleared["timezone"] == "Asia/Shanghai"


async def test_it_is_paused_and_resumed(admin: Any) -> None:
    made = await make(admin)
    path = f"{ALL}/{made['id']}"
    paused = await ask(admin, "post", f"{path}/pause")
    assert (paused["paused"], paused["next_at"]) == (True, None)
    assert await ask(admin, "post", f"{path}/resume") == made


async def test_a_run_answers_with_its_job(admin: Any, client: Any) -> None:
    made = await make(admin)
    answer = await client.post(f"{ALL}/{made['id']}/run")
    job = await answer.get_json()
    assert (answer.status_code, job["schedule"], job["args"]) == (202, made["id"], [1])
    assert await ask(client, "get", answer.headers["Location"])
    assert (await ask(client, "post", f"{ALL}/{made['id']}/run", 202))["id"] != job["id"]


async def test_a_run_with_the_same_idempotency_key_is_the_same_job(admin: Any, client: Any) -> None:
    path, other = [f"{ALL}/{(await make(admin, name=name))['id']}/run" for name in ("one", "two")]
    headers = {"Idempotency-Key": "once"}
    jobs = [await ask(client, "post", path, 202, headers=headers) for _ in range(2)]
    assert jobs[0]["id"] == jobs[1]["id"]
    await problem(await client.post(other, headers=headers), 409)
    assert await count(client) == 1


async def test_a_deleted_schedule_is_gone_and_its_name_free(admin: Any, client: Any) -> None:
    path = f"{ALL}/{(await make(admin))['id']}"
    job = await ask(client, "post", f"{path}/run", 202)
    answer = await admin.delete(path)
    assert (answer.status_code, await answer.get_data()) == (204, b"")
    await problem(await admin.get(path), 404)
    assert (await ask(client, "get", f"/api/jobs/{job['id']}"))["schedule"] == job["schedule"]
    await make(admin)


async def test_the_next_times_are_local_and_tell_which_are_moved(admin: Any, client: Any) -> None:
    starts = "2094-03-27T00:00:00+01:00"
    rule = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "starts_at": starts}
    path = f"{ALL}/{(await make(admin, **rule))['id']}/next"
    assert await ask(client, "get", f"{path}?count=3") == {
        "times": [
            "2094-03-27T02:30:00+01:00", "2094-03-28T03:00:00+02:00", "2094-03-29T02:30:00+02:00",
        ],
        "dst": [1],
    }  # fmt: skip
    assert len((await ask(client, "get", path))["times"]) == 5
    assert len((await ask(client, "get", f"{path}?count=100"))["times"]) == 100


async def test_a_senseless_count_is_refused_by_name(admin: Any, client: Any) -> None:
    path = f"{ALL}/{(await make(admin))['id']}/next"
    for query in ("count=0", "count=1001", "count=x", "count=", "count=1&count=2", "colour=red"):
        said = await problem(await client.get(f"{path}?{query}"), 422)
        assert said["field"].startswith(query.partition("=")[0])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "name"), ({"name": ""}, "name"), ({"name": "x" * 256}, "name"),
    ({"name": "\ud800"}, "name"), ({"name": "\0"}, "name"), ({"name": 5}, "name"),
    ({"task": None}, "task"), ({"task": ""}, "task"), ({"args": 5}, "args"),
    ({"args": [1, 2, 3]}, "args"), ({"args": ["one"]}, "args.0"), ({"kwargs": []}, "kwargs"),
    ({"args": [], "kwargs": {"left": {}}}, "kwargs.left"), ({"args": []}, "kwargs.left"),
    ({"kwargs": {"left": 1}}, "kwargs.left"), ({"kwargs": {"\ud800": 1}}, "kwargs"),
    ({"queue": "a b"}, "queue"), ({"queue": "\0"}, "queue"), ({"cron": "0 0 31 2 *"}, "cron"),
    ({"cron": "often"}, "cron"), ({"cron": ""}, "cron"), ({"cron": "* " * 300}, "cron"),
    ({"cron": "* * * * *", "interval": 60}, "interval"), ({"interval": None}, "cron"),
    ({"interval": 0}, "interval"), ({"interval": -5}, "interval"), ({"interval": "5"}, "interval"),
    ({"interval": True}, "interval"), ({"interval": 10**400}, "interval"),
    ({"timezone": "Moon/Base"}, "timezone"), ({"timezone": "../x"}, "timezone"),
    ({"timezone": 5}, "timezone"), ({"starts_at": "2030-01-01T00:00:00"}, "starts_at"),
    ({"starts_at": 5}, "starts_at"), ({"ends_at": "3000-01-01T00:00:00Z"}, "ends_at"),
    ({"starts_at": "2030-01-02T00:00:00Z", "ends_at": "2030-01-01T00:00:00Z"}, "ends_at"),
    ({"missed": "twice"}, "missed"), ({"missed": 1}, "missed"), ({"colour": "red"}, "colour"),
    ({"id": "x"}, "id"), ({"source": "settings"}, "source"), ({"next_at": None}, "next_at"),
]  # fmt: skip


async def test_a_wrong_value_is_422_and_named_and_nothing_is_made(admin: Any) -> None:
    for wrong, field in WRONG:
        rule = {} if "cron" in wrong and "interval" not in wrong else {"interval": 60}
        body = {"name": "new", "task": ADD, "args": [1]} | rule | wrong
        said = await problem(await admin.post(ALL, json=body), 422)
        assert said["field"].startswith(field), (wrong, said)
    for missing in ("name", "task"):
        body = {"name": "new", "task": ADD, "args": [1], "interval": 60}
        body.pop(missing)
        assert (await problem(await admin.post(ALL, json=body), 422))["field"] == missing
    assert await ask(admin, "get", ALL) == {"items": []}


async def test_a_wrong_change_is_422_and_named_and_nothing_is_changed(admin: Any) -> None:
    made = await make(admin)
    for wrong, field in WRONG:
        answer = await admin.patch(f"{ALL}/{made['id']}", json=wrong)
        assert (await problem(answer, 422))["field"].startswith(field), wrong
    assert await ask(admin, "get", f"{ALL}/{made['id']}") == made


async def test_an_unknown_task_is_404_and_named(admin: Any) -> None:
    made = await make(admin)
    body = {"name": "new", "task": "no.such", "interval": 60}
    for answer in (
        await admin.post(ALL, json=body),
        await admin.patch(f"{ALL}/{made['id']}", json={"task": "no.such"}),
    ):
        assert "no.such" in (await problem(answer, 404))["detail"]


async def test_a_name_that_is_taken_is_409(admin: Any) -> None:
    await make(admin)
    other = await make(admin, name="other")
    body = {"name": "mine", "task": ADD, "args": [1], "interval": 60}
    assert "'mine'" in (await problem(await admin.post(ALL, json=body), 409))["detail"]
    await problem(await admin.patch(f"{ALL}/{other['id']}", json={"name": "mine"}), 409)
    assert len((await ask(admin, "get", ALL))["items"]) == 2


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("get", "", {}), ("get", "/next", {}), ("post", "/run", {}), ("post", "/pause", {}),
    ("post", "/resume", {}), ("patch", "", {"json": {}}), ("delete", "", {}),
]  # fmt: skip


async def test_an_unknown_schedule_is_404(admin: Any) -> None:
    for id_ in ("é", "%00", "x" * 2000, "00000000-0000-7000-8000-000000000000"):
        for method, end, body in CALLS:
            await problem(await getattr(admin, method)(f"{ALL}/{id_}{end}", **body), 404)
    assert await count(admin) == 0


async def test_one_of_settings_is_shown_paused_and_run_but_not_changed(
    admin: Any, given: str
) -> None:
    assert (await ask(admin, "get", given))["source"] == "settings"
    assert (await ask(admin, "post", f"{given}/pause"))["paused"]
    assert not (await ask(admin, "post", f"{given}/resume"))["paused"]
    await ask(admin, "post", f"{given}/run", 202)
    await problem(await admin.patch(given, json={"name": "other"}), 409)
    await problem(await admin.delete(given), 409)


async def test_a_viewer_reads_an_operator_runs_and_an_admin_changes(
    app: Quart, admin: Any, client: Any
) -> None:
    viewer = caller(app, Role.VIEWER)
    path = f"{ALL}/{(await make(admin))['id']}"
    allowed = {"get": (viewer, client), "/run": (client,)}
    for someone in (viewer, client):
        await problem(await someone.post(ALL, json={}), 403)
        for method, end, body in CALLS:
            answer = await getattr(someone, method)(f"{path}{end}", **body)
            may = someone in allowed.get(method, ()) or someone in allowed.get(end, ())
            assert (answer.status_code != 403) is may, (method, end)


async def test_without_a_token_or_with_a_revoked_one_nothing_is_told(
    app: Quart, admin: Any
) -> None:
    path = f"{ALL}/{(await make(admin))['id']}"
    with app.extensions["db"].session() as session:
        tokens.revoke(session, "admin")
    for someone in (Caller(app.test_client(), {}), admin):
        await problem(await someone.post(ALL, json={}), 401)
        for method, end, body in CALLS:
            await problem(await getattr(someone, method)(f"{path}{end}", **body), 401)


async def test_each_call_is_described_with_its_answer(client: Any) -> None:
    whole = await ask(client, "get", "/openapi.json")
    paths = {path: ops for path, ops in whole["paths"].items() if path.startswith(ALL)}
    good = {
        (path.removeprefix(ALL), method): next(iter(operation["responses"]))
        for path, operations in paths.items() for method, operation in operations.items()
    }  # fmt: skip
    one = "/{schedule_id}"
    assert good == {
        ("", "get"): "200", ("", "post"): "201", (one, "get"): "200", (one, "patch"): "200",
        (one, "delete"): "204", (f"{one}/run", "post"): "202", (f"{one}/pause", "post"): "200",
        (f"{one}/resume", "post"): "200", (f"{one}/next", "get"): "200",
    }  # fmt: skip
