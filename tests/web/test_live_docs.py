"""What docs/live.md says is so: its client, its commands, its bounds and its close codes."""

import asyncio
import re
from typing import Any

import pytest
import websockets

import settings
from quart_app import attempts, jobs
from quart_app.web import inbox
from quart_app.web.commands import parse
from tests.real import ROOT
from tests.web.following import COUNT, Hand, Served, on_one_database

PAGE = (ROOT / "docs" / "live.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def client() -> Any:
    """The function of the page's client."""
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(code, names)
    return names["follow"]


@on_one_database
async def test_the_client_follows_a_job_to_its_end(
    served: Served, secret: str, hand: Hand, client: Any
) -> None:
    job_id = await hand.whole_job()
    last = await client(served.socket_address, secret, job_id)
    assert (last["seq"], last["state"], last["result"]) == (5, "succeeded", "done")
    with pytest.raises(websockets.ConnectionClosed):
        await client(served.socket_address, "wrong", job_id)


@on_one_database
async def test_the_client_goes_on_after_an_end_that_a_retry_took_back(
    served: Served, secret: str, hand: Hand, client: Any
) -> None:
    job_id = await hand.start()
    await hand.do(attempts.fail, job_id, 1, "stumbled")
    await hand.do(jobs.retry, job_id)
    following = asyncio.create_task(client(served.socket_address, secret, job_id))
    assert await hand.do(attempts.claim, job_id, COUNT, "w", 600.0)
    await hand.do(attempts.succeed, job_id, 2, "done")
    assert (await following)["result"] == "done"


def test_the_commands_make_sense() -> None:
    _, commands = blocks("json")
    for line in commands.splitlines():
        assert parse(line)


def test_the_bounds_are_those_of_the_settings() -> None:
    rows = dict(re.findall(r"\| `(MAX_\w+)` \| ([\d,]+) \|", PAGE))
    assert len(rows) == 3
    assert all(getattr(settings, name) == int(said.replace(",", "")) for name, said in rows.items())
    assert f"| {inbox.MOST_BYTES:,} |" in PAGE


def test_each_close_code_is_explained() -> None:
    sources = (path.read_text() for path in (ROOT / "quart_app" / "web").glob("*.py"))
    used = {code for text in sources for code in re.findall(r"\b(?:10\d\d|44\d\d)\b", text)}
    assert used - {"1024"} <= set(re.findall(r"^\| (\d{4}) \|", PAGE, re.MULTILINE))
