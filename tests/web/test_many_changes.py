"""Cancelling and retrying many jobs by one request."""

from typing import Any

import pytest
from quart import Quart

from quart_app.models import Role
from tests.conftest import make_token
from tests.web.test_api import ADD, listed, submit
from tests.web.test_problems import problem

PATHS = ["/api/jobs/cancel", "/api/jobs/retry"]


async def change(client: Any, path: str, **wanted: Any) -> tuple[int, dict[str, Any]]:
    answer = await client.post(path, json=wanted)
    return answer.status_code, await answer.get_json()


def tally(matched: int, done: int, refused: int = 0) -> dict[str, Any]:
    return {"matched": matched, "done": done, "refused": refused, "next": None}


async def test_jobs_that_match_are_cancelled_and_retried(client: Any) -> None:
    for _ in range(3):
        await submit(client, delay=60, queue="mail")
    await submit(client, delay=60)
    cancel, retry = PATHS
    assert await change(client, cancel, queue="mail", dry_run=True) == (200, tally(3, 0))
    assert await change(client, cancel, queue="mail") == (202, tally(3, 3))
    assert len((await listed(client, state="cancelled"))["items"]) == 3
    assert await change(client, retry, task=ADD, state="cancelled") == (202, tally(3, 3))
    assert await change(client, retry, task=ADD) == (202, tally(0, 0))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "body"), ({"q": ""}, "body"), ({"dry_run": True}, "body"),
    ({"q": "a\ud800"}, "q"), ({"task": "a\ud800"}, "task"), ({"queue": "a\ud800"}, "queue"),
    ({"state": "nonsense"}, "state"), ({"state": "succeeded"}, "state"), ({"task": 5}, "task"),
    ({"since": "yesterday"}, "since"),
    ({"task": ADD, "dry_run": "yes"}, "dry_run"), ({"colour": "red"}, "colour"),
    ({"task": ADD, "cursor": "x"}, "cursor"), ({"task": ADD, "cursor": "succeeded."}, "cursor"),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_what_makes_no_sense_is_named_and_changes_nothing(client: Any, path: str) -> None:
    await submit(client, delay=60)
    for body, field in WRONG:
        assert (await problem(await client.post(path, json=body), 422))["field"] == field, body
    await problem(await client.post(path), 400)
    assert len((await listed(client, state="scheduled"))["items"]) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_viewer_may_not(app: Quart, path: str) -> None:
    headers = {"Authorization": f"Bearer {make_token(app.extensions['db'], Role.VIEWER)}"}
    await problem(await app.test_client().post(path, json={"task": ADD}, headers=headers), 403)


@pytest.mark.parametrize("path", PATHS)
async def test_their_paths_are_no_jobs(client: Any, path: str) -> None:
    await problem(await client.get(path), 405)
    await problem(await client.post(f"{path}/cancel"), 404)
