"""Tokens for certain tasks: every way to use another one is refused, naming it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from quart import Quart

from quart_app import jobs, schedules, sms
from quart_app.models import AuditEntry, JobState, Role
from tests.book import ADD
from tests.conftest import Caller, make_token, speaking
from tests.ledger import Ledger
from tests.web.test_auth import csrf, signed_in
from tests.web.test_problems import problem
from tests.web.test_who import rows

OTHER, SMS = "tests.sample_tasks.repeat", "tasks.background.async_send_sms"
MINE, NOT_MINE = {"task": ADD, "args": [1]}, {"task": OTHER, "args": ["x"]}
RULE = {"name": "new", "interval": 60}


@pytest.fixture
def secret(app: Quart) -> str:
    """The token of an admin who may use one task alone."""
    tasks = ["tests.sample_tasks.a[d]d", "no.such.*"]
    return make_token(app.extensions["db"], Role.ADMIN, tasks=tasks)


@pytest.fixture
def limited(app: Quart, secret: str) -> Caller:
    return speaking(app, secret)


@pytest.fixture
async def browser(app: Quart, secret: str) -> Any:
    return await signed_in(app, secret)


def placed(still: Ledger, task: str, **arguments: Any) -> dict[str, str]:
    """The paths of a job that waits, of one that failed, and of a schedule, all of the task."""

    def make(session: Any) -> dict[str, str]:
        waits, failed = (jobs.submit(session, task, delay=3600, **arguments) for _ in range(2))
        schedule = schedules.create(session, task, task, interval=3600, **arguments)
        return {
            "job": f"jobs/{waits.id}",
            "failed": f"jobs/{failed.id}",
            "schedule": f"schedules/{schedule.id}",
        }

    paths = still.within(make)
    still.change(paths["failed"].removeprefix("jobs/"), state=JobState.FAILED)
    return paths


@pytest.fixture
def others(still: Ledger) -> dict[str, str]:
    return placed(still, OTHER, args=["x"])


@pytest.fixture
def own(still: Ledger) -> dict[str, str]:
    return placed(still, ADD, args=[1])


async def refused(answer: Any, task: str = OTHER, where: str = "") -> None:
    detail = f"{where}Your token may not use the task {task}."
    assert (await problem(answer, 403))["detail"] == detail


async def test_another_task_is_not_submitted_by_any_call(limited: Any, still: Ledger) -> None:
    before = rows(still)
    await refused(await limited.post("/task"), SMS)
    await refused(await limited.post("/api/jobs", json=NOT_MINE))
    await refused(await limited.post(f"/api/tasks/{OTHER}", json={"text": "x"}))
    await refused(await limited.post("/api/schedules", json=NOT_MINE | RULE))
    assert rows(still) == before


async def test_a_batch_with_another_task_names_its_place_and_none_is_made(
    limited: Any, still: Ledger
) -> None:
    answer = await limited.post("/api/jobs/batch", json={"jobs": [MINE, MINE, NOT_MINE, MINE]})
    await refused(answer, where="jobs.2.task: ")
    assert still.jobs() == []


async def test_what_there_is_of_another_task_is_left_alone(
    limited: Any, others: dict[str, str], still: Ledger
) -> None:
    before, schedule = rows(still), f"/api/{others['schedule']}"
    await refused(await limited.post(f"/api/{others['job']}/cancel"))
    await refused(await limited.post(f"/api/{others['failed']}/retry"))
    for word in ("run", "pause", "resume"):
        await refused(await limited.post(f"{schedule}/{word}"))
    await refused(await limited.patch(schedule, json={"interval": 5}))
    await refused(await limited.patch(schedule, json=MINE))
    await refused(await limited.delete(schedule))
    assert rows(still) == before


async def test_of_many_jobs_those_of_another_task_do_not_match(
    limited: Any, others: dict[str, str], own: dict[str, str], still: Ledger
) -> None:
    for path, count in (("/api/jobs/cancel", 1), ("/api/jobs/retry", 2)):
        for wanted, matched in (({"task": OTHER}, 0), ({"queue": "celery"}, count)):
            tally = await (await limited.post(path, json=wanted)).get_json()
            assert (tally["matched"], tally["done"]) == (matched, matched), (path, wanted)
    assert {job.state for job in still.jobs() if job.task == OTHER} == {"scheduled", "failed"}


async def test_a_schedule_is_not_turned_to_another_task(
    limited: Any, own: dict[str, str], still: Ledger
) -> None:
    before = rows(still)
    await refused(await limited.patch(f"/api/{own['schedule']}", json=NOT_MINE))
    assert rows(still) == before


async def test_what_others_do_may_be_read(limited: Any, others: dict[str, str]) -> None:
    for path in others.values():
        assert (await limited.get(f"/api/{path}")).status_code == 200


async def test_the_forms_of_the_console_refuse_it_as_well(
    browser: Any, others: dict[str, str], still: Ledger
) -> None:
    message = still.within(lambda s: sms.schedule(s, "+1", "x", datetime.now(UTC)).id)
    proof, before = await csrf(browser, "/sms"), rows(still)
    forms: dict[str, dict[str, str]] = {
        f"/{others['job']}/cancel": {},
        f"/{others['failed']}/retry": {},
        "/schedules": {"name": "new", "task": OTHER, "kwargs": '{"text": "x"}', "interval": "5"},
        **{f"/{others['schedule']}/{word}": {} for word in ("run", "pause", "resume", "delete")},
    }
    for path, fields in forms.items():
        await refused(await browser.post(path, form=fields | {"csrf_token": proof}))
    text = {"to": "+8613800138000", "text": "x", "csrf_token": proof}
    for at in ("", "2999-01-01T00:00"):
        answer = await browser.post("/sms", form=text | {"send_at": at})
        assert answer.status_code == 403
        page = await answer.get_data(as_text=True)
        assert f"Your token may not use the task {SMS}." in page
        assert "<textarea" not in page
    await refused(await browser.post(f"/sms/{message}/cancel", form={"csrf_token": proof}), SMS)
    assert rows(still) == before


async def test_a_page_has_no_button_for_what_its_reader_may_not_do(
    browser: Any, others: dict[str, str], own: dict[str, str]
) -> None:
    for thing, button in (("job", "/cancel"), ("failed", "/retry"), ("schedule", "/pause")):
        pages = [await browser.get(f"/{paths[thing]}") for paths in (others, own)]
        there = [button in await page.get_data(as_text=True) for page in pages]
        assert there == [False, True], thing
    form = await (await browser.get("/schedules/new")).get_data(as_text=True)
    assert (ADD in form, OTHER in form) == (True, False)


async def test_its_own_tasks_it_may_use_in_every_way(
    limited: Any, own: dict[str, str], still: Ledger
) -> None:
    made = await (await limited.post("/api/schedules", json=MINE | RULE)).get_json()
    schedule = f"/api/schedules/{made['id']}"
    answers = [
        await limited.post("/api/jobs", json=MINE),
        await limited.post("/api/jobs/batch", json={"jobs": [MINE, MINE]}),
        await limited.post(f"/api/tasks/{ADD}", json={"left": 1}),
        await limited.post(f"/api/{own['job']}/cancel"),
        await limited.post(f"/api/{own['failed']}/retry"),
        await limited.post(f"{schedule}/run"),
        await limited.patch(schedule, json={"interval": 5}),
        await limited.delete(schedule),
    ]
    assert [answer.status_code for answer in answers] == [202] * 6 + [200, 204]
    assert still.within(lambda session: session.query(AuditEntry).count()) > 6
