"""A job that has ended is run anew with other arguments: a new job that knows the old one."""

from typing import Any

import pytest

from quart_app import jobs
from quart_app.errors import Conflict
from quart_app.models import JobState
from tests.book import ADD, Book
from tests.web.test_api import count, submit
from tests.web.test_problems import problem


async def ended(client: Any, **body: Any) -> dict[str, Any]:
    job = await submit(client, delay=60, **body)
    assert (await client.post(f"/api/jobs/{job['id']}/cancel")).status_code == 202
    return job


async def anew(client: Any, job: Any, headers: Any = None, **changes: Any) -> dict[str, Any]:
    path = f"/api/jobs/{job['id']}/retry"
    answer = await client.post(path, json=changes, headers=headers or {})
    assert answer.status_code == 202, await answer.get_data()
    made: dict[str, Any] = await answer.get_json()
    assert answer.headers.get("Location", f"/api/jobs/{job['id']}") == f"/api/jobs/{made['id']}"
    return made


async def test_it_is_a_new_job_with_the_new_arguments(client: Any) -> None:
    old = await ended(client, queue="mail", priority=3)
    new = await anew(client, old, kwargs={"left": 2, "right": 5})
    assert new["id"] != old["id"]
    assert (new["retry_of"], new["kwargs"]) == (old["id"], {"left": 2, "right": 5})
    assert (new["task"], new["queue"], new["priority"]) == (ADD, "mail", 3)
    assert (new["state"], old["retry_of"]) == ("queued", None)


async def test_what_is_not_given_stays_as_it_was(client: Any) -> None:
    old = await ended(client, args=[1], kwargs={"right": 2})
    assert (await anew(client, old, args=[7]))["kwargs"] == {"right": 2}
    assert (await anew(client, old, kwargs={"right": 9}))["args"] == [1]


async def test_without_changes_it_is_the_same_job_again(client: Any) -> None:
    old = await ended(client)
    assert (await anew(client, old))["id"] == old["id"]
    assert await count(client) == 1


@pytest.mark.parametrize("state", [*JobState])
def test_only_what_has_ended_is_run_anew(book: Book, state: JobState) -> None:
    job = book.submit()
    book.set(job, state=state)
    if state in ("succeeded", "failed", "cancelled"):
        assert book(jobs.retry_with, job.id, [2], None, {}).retry_of == job.id
    else:
        with pytest.raises(Conflict, match=state):
            book(jobs.retry_with, job.id, [2], None, {})


WRONG = [
    ({"kwargs": {"left": "one"}}, "kwargs.left"), ({"args": 5}, "args"), ({"kwargs": []}, "kwargs"),
    ({"args": [1, 2, 3]}, "args"), ({"queue": "mail"}, "queue"), ({"kwargs": {}}, "kwargs.left"),
]  # fmt: skip


async def test_wrong_arguments_are_named_and_leave_no_row(client: Any) -> None:
    path = f"/api/jobs/{(await ended(client))['id']}/retry"
    for body, field in WRONG:
        assert (await problem(await client.post(path, json=body), 422))["field"] == field
    await problem(await client.post(path, data=b"{", headers={"Content-Type": "text/json"}), 415)
    assert await count(client) == 1


async def test_a_unique_key_goes_with_it_unless_a_live_job_has_it(client: Any) -> None:
    old = await ended(client, unique_key="k")
    first = await anew(client, old, kwargs={"left": 2})
    assert (await submit(client, unique_key="k"))["id"] == first["id"]
    path = f"/api/jobs/{old['id']}/retry"
    refused = await client.post(path, json={"kwargs": {"left": 3}})
    assert "unique_key" in (await problem(refused, 409))["detail"]


async def test_the_same_idempotency_key_makes_one_job(client: Any) -> None:
    old, key = await ended(client), {"Idempotency-Key": "k"}
    made = [await anew(client, old, key, kwargs={"left": 2}) for _ in range(2)]
    assert made[0]["id"] == made[1]["id"]
    path = f"/api/jobs/{old['id']}/retry"
    await problem(await client.post(path, json={"kwargs": {"left": 3}}, headers=key), 409)


async def test_each_page_links_to_the_other(client: Any) -> None:
    old = await ended(client)
    new = await anew(client, old, kwargs={"left": 2})
    pages = [
        await (await client.get(f"/jobs/{job['id']}")).get_data(as_text=True) for job in (old, new)
    ]
    assert f'<dt>Run anew as</dt><dd><a href="/jobs/{new["id"]}"' in pages[0]
    assert f'<dt>Made from</dt><dd><a href="/jobs/{old["id"]}"' in pages[1]
