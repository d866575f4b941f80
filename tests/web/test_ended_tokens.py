"""Tokens whose time is over, or that were revoked: refused at once, wherever they are in use."""

import asyncio
from typing import Any

import httpx
import pytest
from quart import Quart
from sqlalchemy import select, update

from quart_app import db, tokens
from quart_app.models import Role, Token
from tests import real
from tests.conftest import Caller
from tests.ledger import Ledger
from tests.web.following import Hand, Served, connect, connect_many, drain
from tests.web.test_auth import BROWSER, csrf, sign_in, signed_in
from tests.web.test_problems import problem


def expire(session: Any) -> None:
    session.execute(update(Token).values(expires_at=db.now(-1)))


def revoke(session: Any) -> None:
    tokens.revoke(session, "operator")


ends = pytest.mark.parametrize("end", [expire, revoke])


@ends
async def test_a_program_is_told_401(client: Any, still: Ledger, end: Any) -> None:
    assert (await client.get("/api/jobs")).status_code == 200
    still.within(end)
    await problem(await client.get("/api/jobs"), 401)
    await problem(await client.post("/task"), 401)
    assert still.jobs() == []


@ends
async def test_open_sockets_and_streams_end(
    served: Served, secret: str, hand: Hand, http: httpx.AsyncClient, end: Any
) -> None:
    job_id, stream = await hand.submit(), {"Accept": "text/event-stream"}
    async with (
        asyncio.timeout(20),
        connect(served, job_id, secret, after=1) as one,
        connect_many(served, secret) as many,
        http.stream("GET", f"/api/jobs/{job_id}/events?after=1", headers=stream) as lines,
    ):
        await hand.do(end)
        assert await drain(one) == await drain(many) == ([], 4401)
        assert b"data: {" not in await lines.aread()


@ends
async def test_a_browser_is_asked_to_sign_in_and_its_forms_do_nothing(
    app: Quart, token: str, still: Ledger, end: Any
) -> None:
    browser = await signed_in(app, token)
    page = f"/jobs/{still.submit('add', 1, delay=3600)}"
    form = {"csrf_token": await csrf(browser, page)}
    still.within(end)
    for answer in (
        await browser.get(page, headers=BROWSER),
        await browser.post(f"{page}/cancel", form=form, headers=BROWSER),
        await browser.get("/", headers=BROWSER),
    ):
        assert answer.status_code == 401
        assert 'action="/sign-in"' in await answer.get_data(as_text=True)
    await problem(await browser.get("/api/jobs"), 401)
    assert [job.state for job in still.jobs()] == ["scheduled"]


async def test_it_signs_in_again_with_another_token_and_goes_on(
    app: Quart, token: str, still: Ledger
) -> None:
    browser = await signed_in(app, token)
    still.within(revoke)
    other = still.within(lambda session: tokens.create(session, "other", Role.VIEWER))
    answer = await sign_in(browser, other, next="/queues")
    assert answer.headers["Location"] == "/queues"
    assert (await browser.get("/queues")).status_code == 200


async def test_uses_are_written_down_without_a_request_that_waits_for_it(
    app: Quart, client: Caller, still: Ledger
) -> None:
    def used() -> Any:
        return still.within(lambda session: session.scalars(select(Token.used_at)).one())

    await client.get("/api/jobs")
    first = await real.eventually(lambda: asyncio.to_thread(used))
    for _ in range(10):
        await client.get("/api/jobs")
    assert used() == first


async def test_an_open_socket_is_a_use(served: Served, secret: str, hand: Hand) -> None:
    async def used() -> Any:
        return await hand.do(lambda session: session.scalars(select(Token.used_at)).one())

    async with connect_many(served, secret):
        assert await real.eventually(used)
