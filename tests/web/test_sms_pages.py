"""The pages of SMS, as a browser without JavaScript has them."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import insert, select

from quart_app import db, sms
from quart_app.models import Message, MessageState, Role
from tests.conftest import make_token
from tests.ledger import Ledger
from tests.web.test_auth import csrf, signed_in
from tests.web.test_pages import text

TO = "+8613800138000"


@pytest.fixture
async def browser(app: Quart, token: str) -> Any:
    return await signed_in(app, token)


async def blank(browser: Any) -> dict[str, str]:
    """The hidden fields of the form, as one page has them."""
    page = await text(await browser.get("/sms"))
    found = re.search('name="nonce" value="([^"]+)"', page)
    assert found, page
    return {"csrf_token": await csrf(browser, "/sms"), "nonce": found[1]}


async def post(browser: Any, **form: str) -> Any:
    return await browser.post("/sms", form={"to": TO, "text": "hello"} | form)


async def fill(browser: Any, **form: str) -> Any:
    return await post(browser, **await blank(browser), **form)


def days_ahead(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M")


def messages(still: Ledger) -> list[Message]:
    return still.within(lambda s: list(s.scalars(select(Message).order_by(Message.id))))


async def test_an_sms_is_sent_by_the_form(browser: Any, client: Any) -> None:
    answer = await fill(browser, to="138 0013 8000", text="one\r\ntwo 你好 🎉")
    job = await (await client.get(f"/api{answer.headers['Location']}")).get_json()
    assert job["kwargs"] == {"to": TO, "text": "one\ntwo 你好 🎉"}


async def test_an_sms_for_later_waits(browser: Any, still: Ledger) -> None:
    answer = await fill(browser, send_at=days_ahead(2))
    page = await text(await browser.get(answer.headers["Location"]))
    assert "waiting" in page
    assert [message.state for message in messages(still)] == [MessageState.WAITING]
    assert still.jobs() == []


async def test_an_sms_for_later_is_cancelled_by_its_button(browser: Any, still: Ledger) -> None:
    await fill(browser, send_at=days_ahead(2))
    (message,) = messages(still)
    path = f"/sms/{message.id}/cancel"
    assert f'formaction="{path}"' in await text(await browser.get("/sms"))
    for said in ("cancelled before its time came", "waits no longer"):
        await browser.post(path, form={"csrf_token": await csrf(browser, "/sms")})
        page = await text(await browser.get("/sms"))
        assert said in page
        assert "formaction" not in page


async def test_an_sms_that_waits_stays_in_sight_however_many_come_after_it(
    browser: Any, still: Ledger
) -> None:
    await fill(browser, send_at=days_ahead(2), text="in two days")
    sent = [{"id": f"{n:0>36}", "to": TO, "text": "x", "state": "sent"} for n in range(30)]
    still.within(lambda s: s.execute(insert(Message).values(created_at=db.now()), sent))
    page = await text(await browser.get("/sms"))
    assert page.index("in two days") < page.index("Recent messages")


@pytest.mark.parametrize("send_at", ["", "2999-01-01T10:00"])
async def test_a_form_that_is_sent_twice_at_once_is_one_sms(
    browser: Any, still: Ledger, send_at: str
) -> None:
    form = await blank(browser) | {"send_at": send_at}
    answers = await asyncio.gather(*(post(browser, **form) for _ in range(3)))
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert len(messages(still)) + len(still.jobs()) == 1
    await post(browser, **form | {"text": "another"})
    assert len(messages(still)) + len(still.jobs()) == 2


@pytest.mark.parametrize("send_at", ["", "2999-01-01T10:00"])
async def test_two_people_whose_forms_are_the_same_each_send_their_sms(
    app: Quart, browser: Any, still: Ledger, send_at: str
) -> None:
    other = await signed_in(app, make_token(app.extensions["db"], Role.OPERATOR, "another"))
    same = {"nonce": "the same", "send_at": send_at}
    for each in (browser, other):
        assert (await post(each, **await blank(each) | same)).status_code == 302
    assert len(messages(still)) + len(still.jobs()) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to", "12"), ("to", ""), ("text", ""), ("text", "a\0b"), ("to", "+86\0"),
        ("send_at", "soon"), ("send_at", "9999-12-31T23:59"), ("send_at", "0001-01-01T00:00"),
        ("send_at", "2020-01-01T10:00"),
    ],
)  # fmt: skip
async def test_a_wrong_sms_keeps_the_input_and_names_the_field(
    browser: Any, still: Ledger, field: str, value: str
) -> None:
    hidden = await blank(browser)
    good = {"to": TO, "text": "kept <b>", "send_at": days_ahead(2)}
    page = await text(await post(browser, **good | hidden | {field: value}), 422)
    assert f'id="{field}-error"' in page
    kept = [good[name] for name in good if name != field] + [hidden["nonce"]]
    assert all(each in page for each in kept)
    assert "No message yet" in page
    assert (still.jobs(), messages(still)) == ([], [])


async def test_a_full_queue_keeps_the_input_and_says_when_to_come_again(
    app: Quart, browser: Any
) -> None:
    app.config["MAX_QUEUE_DEPTH"] = 0
    answer = await fill(browser, text="kept")
    page = await text(answer, 429)
    assert "holds 0 jobs already; try again later" in page
    assert ">\nkept</textarea>" in page
    assert answer.headers["Retry-After"]


async def test_a_viewer_is_told_why_there_is_no_form(app: Quart, still: Ledger) -> None:
    still.within(lambda s: sms.schedule(s, TO, "later", datetime.now(UTC)))
    viewer = await signed_in(app, make_token(app.extensions["db"], Role.VIEWER))
    page = await text(await viewer.get("/sms"))
    assert "Your token may not send any" in page
    assert "later" in page
    assert not re.search(r"<textarea|sms\.js|formaction", page)
