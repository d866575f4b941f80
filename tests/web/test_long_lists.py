"""Lists that take more than one page, as a client and as a person see them."""

from typing import Any

import pytest

from quart_app import lists
from tests.web.test_api import listed, submit

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search takes two jobs a page."""
    monkeypatch.setattr(lists, "STRIDE", 2)
    monkeypatch.setattr(lists, "PATIENCE", 0)


async def sought_first(client: Any) -> dict[str, Any]:
    """One job to look for, and three that came after it."""
    sought = await submit(client, "tests.sample_tasks.repeat", kwargs={"text": "needle"})
    for _ in range(3):
        await submit(client)
    return sought


@pytest.mark.usefixtures("hurried")
async def test_a_page_may_be_empty_and_have_a_next(client: Any) -> None:
    sought = await sought_first(client)
    first = await listed(client, q="needle")
    second = await listed(client, q="needle", cursor=first["next"])
    assert first["items"] == []
    assert [job["id"] for job in second["items"]] == [sought["id"]]


@pytest.mark.usefixtures("hurried")
async def test_the_console_says_that_the_search_goes_on(client: Any) -> None:
    await sought_first(client)
    page = await (await client.get("/jobs?q=needle")).get_data(as_text=True)
    assert "the search goes on" in page
    assert 'rel="next">Older jobs' in page
    assert "Nothing in the book yet" not in page


@pytest.mark.parametrize(
    ("at", "found"), [("0", 0), ("99999999999999999", 1), ("9" * 18, None), ("-1", None)]
)
async def test_a_cursor_is_any_instant_that_there_is(
    client: Any, at: str, found: int | None
) -> None:
    await submit(client)
    answer = await client.get(f"/api/jobs?cursor={at}.{NOBODY}")
    if found is None:
        assert (answer.status_code, (await answer.get_json())["field"]) == (422, "cursor")
    else:
        assert len((await answer.get_json())["items"]) == found
