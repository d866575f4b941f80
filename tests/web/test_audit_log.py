"""The audit log: who changed what, told to admins alone."""

from typing import Any

import pytest
from quart import Quart

from quart_app import tokens
from quart_app.models import Role
from tests.book import ADD
from tests.conftest import make_token
from tests.ledger import Ledger
from tests.web.test_auth import csrf, signed_in
from tests.web.test_problems import problem

LOG = "/api/audit"


@pytest.fixture
async def browser(app: Quart, admin_token: str) -> Any:
    return await signed_in(app, admin_token)


async def log(admin: Any, **filters: Any) -> list[dict[str, Any]]:
    answer = await admin.get(LOG, query_string=filters)
    assert answer.status_code == 200, await answer.get_data(as_text=True)
    items: list[dict[str, Any]] = (await answer.get_json())["items"]
    return items


async def actions(admin: Any, **filters: Any) -> list[str]:
    return [entry["action"] for entry in await log(admin, **filters)]


async def test_what_the_api_changes_is_told_newest_first_with_its_request(
    admin: Any, still: Ledger
) -> None:
    job_id = still.submit(ADD, 1, delay=3600)
    for word in ("cancel", "retry"):
        asked = {"X-Request-ID": f"asked-to-{word}"}
        assert (await admin.post(f"/api/jobs/{job_id}/{word}", headers=asked)).status_code == 202
    newest, older = await log(admin, target=job_id)
    assert newest == newest | {
        "actor": "admin", "via": "api", "action": "job.retry", "request_id": "asked-to-retry",
        "target": {"kind": "job", "id": job_id}, "detail": {"task": ADD},
    }  # fmt: skip
    assert (older["action"], older["request_id"]) == ("job.cancel", "asked-to-cancel")
    assert newest["at"] > older["at"]


async def test_each_change_of_a_schedule_is_told(admin: Any) -> None:
    wanted = {"name": "mine", "task": ADD, "args": [1], "interval": 3600}
    wanted |= {"timezone": "UTC", "starts_at": "2030-01-01T00:00:00Z"}
    made = await (await admin.post("/api/schedules", json=wanted)).get_json()
    path = f"/api/schedules/{made['id']}"
    await admin.patch(path, json={"interval": 60, "missed": "skip"})
    for word in ("pause", "resume"):
        await admin.post(f"{path}/{word}")
    run = await (await admin.post(f"{path}/run")).get_json()
    await admin.delete(path)
    told = await log(admin, target=made["id"])
    verbs = ["delete", "run", "resume", "pause", "change", "create"]
    assert [entry["action"] for entry in told] == [f"schedule.{verb}" for verb in verbs]
    assert {entry["detail"]["name"] for entry in told} == {"mine"}
    rule = {"interval": 60.0, "timezone": "UTC", "starts_at": "2030-01-01T00:00:00+00:00"}
    assert told[0]["detail"] == {"name": "mine", "task": ADD} | rule
    assert told[1]["detail"]["job"] == run["id"]
    assert told[4]["detail"]["fields"] == ["interval", "missed"]


async def test_a_run_that_is_asked_for_twice_is_told_once(admin: Any) -> None:
    wanted = {"name": "mine", "task": ADD, "args": [1], "interval": 3600}
    made = await (await admin.post("/api/schedules", json=wanted)).get_json()
    for _ in range(2):
        headers = {"Idempotency-Key": "once"}
        await admin.post(f"/api/schedules/{made['id']}/run", headers=headers)
    assert len(await log(admin, action="schedule.run")) == 1


async def test_what_is_refused_or_only_read_or_submitted_is_not_told(
    admin: Any, still: Ledger
) -> None:
    job_id = still.submit(ADD, 1, delay=3600)
    await admin.post("/api/jobs", json={"task": ADD, "args": [1]})
    assert (await admin.post(f"/api/jobs/{job_id}/retry")).status_code == 409
    assert (await admin.post("/api/jobs/unknown/cancel")).status_code == 404
    assert (await admin.post("/api/schedules/unknown/run")).status_code == 404
    await admin.get("/api/jobs")
    assert await actions(admin) == ["token.create"]


async def test_who_signs_in_is_told_and_who_is_refused(
    app: Quart, admin: Any, browser: Any
) -> None:
    with app.extensions["db"].session() as session:
        code = tokens.make_link(session, "admin")
    for _ in range(2):
        await app.test_client().get(f"/sign-in/{code}")
    told = await log(admin, action="token.sign-in")
    assert [(entry["actor"], entry["detail"]["by"]) for entry in told] == [
        ("admin", "link"), ("admin", "token")
    ]  # fmt: skip
    (refused,) = await log(admin, action="token.refuse")
    assert (refused["actor"], refused["target"]["id"]) == ("", None)
    assert code not in str(refused)


async def test_what_the_console_changes_is_told_as_its_doing(
    admin: Any, browser: Any, still: Ledger
) -> None:
    page = f"/jobs/{still.submit(ADD, 1, delay=3600)}"
    await browser.post(f"{page}/cancel", form={"csrf_token": await csrf(browser, page)})
    (entry,) = await log(admin, action="job.cancel")
    assert (entry["actor"], entry["via"]) == ("admin", "console")


async def test_it_is_paged_as_jobs_are(admin: Any, still: Ledger) -> None:
    for _ in range(5):
        job_id = still.submit(ADD, 1, delay=3600)
        await admin.post(f"/api/jobs/{job_id}/cancel")
    all_of_it, cursor = await log(admin), None
    seen: list[dict[str, Any]] = []
    while not seen or cursor:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = await (await admin.get(LOG, query_string=query)).get_json()
        seen, cursor = seen + page["items"], page["next"]
    assert seen == all_of_it
    assert len(seen) == 6


async def test_it_is_filtered_by_who_what_and_when(admin: Any, still: Ledger) -> None:
    job_id = still.submit(ADD, 1, delay=3600)
    await admin.post(f"/api/jobs/{job_id}/cancel")
    newest, oldest = await log(admin)
    assert await actions(admin, actor="admin") == ["job.cancel"]
    assert await actions(admin, actor="nobody") == []
    assert await actions(admin, action="token.create") == ["token.create"]
    assert await actions(admin, since=newest["at"]) == ["job.cancel"]
    assert await actions(admin, until=oldest["at"]) == ["token.create"]


async def test_a_filter_that_makes_no_sense_is_named(admin: Any) -> None:
    wrong = {
        "since": "soon",
        "until": "-8.2e-19",
        "limit": "0",
        "cursor": "x",
        "actor": "\0",
        "who": "x",
    }
    for name, value in wrong.items():
        answer = await admin.get(LOG, query_string={name: value})
        assert (await problem(answer, 422))["field"] == name


async def test_admins_have_a_page_of_it_and_a_link_to_that(
    app: Quart, browser: Any, still: Ledger
) -> None:
    page = await (await browser.get("/audit")).get_data(as_text=True)
    assert page.count('href="/audit"') == 2
    assert "token.sign-in" in page
    older = await (await browser.get("/audit?limit=1")).get_data(as_text=True)
    assert "Older entries" in older
    told = await (await browser.get("/audit?actor=admin&until=1999-01-01T00:00:00Z")).get_data()
    assert b"No entry matches." in told
    assert b">actor admin \xc3\x97</a>" in told
    assert b'href="/audit?actor=admin" aria-label="Drop until' in told
    operator = await signed_in(app, make_token(app.extensions["db"], Role.OPERATOR))
    assert (await operator.get("/audit")).status_code == 403
    assert "/audit" not in await (await operator.get("/jobs")).get_data(as_text=True)
