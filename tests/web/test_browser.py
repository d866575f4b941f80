"""The console in a real browser, before a real web process and a real worker."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    WebSocket,
    async_playwright,
    expect,
)
from sqlalchemy import update

from quart_app import attempts, jobs, schedules, sms, tokens
from quart_app.models import Role, Token
from tests import real
from tests.conftest import Place, missing
from tests.real import eventually
from tests.web.conftest import serving
from tests.web.following import COUNT, Hand, Served, numbered, on_one_database

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
TEXTS = [
    "", "a", "a" * 160, "a" * 161, "€" * 80, "€" * 81, "a" * 152 + "€" + "a" * 10, "你" * 70,
    "你" * 71, "🎉" * 35, "🎉" * 36, "a" * 66 + "🎉" + "你" * 10, "line\nbreak", "`", "ΔΦ{}",
]  # fmt: skip
STEPS = re.compile("step [1-9]")
expect.set_options(timeout=20_000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        missing("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        await browser.close()


async def signed_in(browser: Browser, served: Served, hand: Hand, **options: object) -> Page:
    """A page of a new visitor, who came by a one-time link."""
    page = await browser.new_page(base_url=served.address, **options)  # type: ignore[arg-type]
    code = await hand.do(tokens.make_link, "operator")
    await page.goto(f"/sign-in/{code}")
    await expect(page).to_have_url(f"{served.address}/jobs")
    return page


def complaints(page: Page) -> list[str]:
    """What the console says from now on: violations of the policy are among it."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


def sockets_of(page: Page) -> list[WebSocket]:
    """Those that it opens from now on."""
    opened: list[WebSocket] = []

    def see(socket: WebSocket) -> None:
        opened.append(socket)

    page.on("websocket", see)
    return opened


async def test_a_job_is_watched_from_its_button_to_its_end(
    served: Served, secret: str, hand: Hand, browser: Browser, worker: Path
) -> None:
    page = await signed_in(browser, served, hand)
    said = complaints(page)
    given = {"kwargs": {"steps": 20, "pause": 0.1}}
    job_id = (await hand.do(jobs.submit, COUNT, **given)).id
    await page.goto(f"/jobs/{job_id}")
    await expect(page.locator("#progress .message")).to_have_text(STEPS)
    await expect(page.locator("#lines")).to_contain_text("line 20")
    await expect(page.locator(".now .badge")).to_have_text("succeeded")
    await expect(page.locator("#connection")).to_have_text("ended")
    await expect(page.locator("#progress")).to_be_hidden()
    await expect(page.locator("#outcome")).to_contain_text('"steps": 20')
    assert await page.locator("#lines li.log").count() == 20
    assert said == []


@on_one_database
async def test_a_page_survives_a_restart_without_missing_or_repeating_a_line(
    clean: Place, secret: str, hand: Hand, browser: Browser, tmp_path: Path
) -> None:
    job_id, port = await hand.start(), real.free_port()
    with serving(clean, tmp_path / "web.log", port=port) as served:
        page = await signed_in(browser, served, hand)
        await page.goto(f"/jobs/{job_id}")
        await hand.say(job_id, "one")
        await expect(page.locator("#lines")).to_contain_text("one")
    await expect(page.locator("#connection")).to_have_text("reconnecting…")
    await hand.say(job_id, "two")
    with serving(clean, tmp_path / "web.log", port=port):
        await hand.say(job_id, "three")
        await hand.succeed(job_id)
        await expect(page.locator("#connection")).to_have_text("ended")
    spoken = await page.locator("#lines li span").all_text_contents()
    assert [text for text in spoken if text] == ["one", "two", "three"]


@on_one_database
async def test_a_quiet_job_is_live_all_the_while(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    page, job_id = await signed_in(browser, served, hand), await hand.start()
    sockets = sockets_of(page)
    await page.clock.install()
    await page.goto(f"/jobs/{job_id}")
    connection = page.locator("#connection")
    await expect(connection).to_have_text("live")
    await connection.evaluate(
        "e => new MutationObserver(() => e.title += e.textContent).observe(e, {childList: true})"
    )
    await page.clock.fast_forward(61_000)
    await eventually(lambda: has(sockets, 2))
    await hand.say(job_id, "one")
    await expect(page.locator("#lines")).to_contain_text("one")
    assert await connection.get_attribute("title") is None
    await eventually(lambda: is_closed(sockets[0]))


async def has(sockets: list[WebSocket], count: int) -> bool:
    return len(sockets) == count


async def is_closed(socket: WebSocket) -> bool:
    return socket.is_closed()


@on_one_database
async def test_a_page_has_the_newest_lines_and_fetches_no_other_again(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    page, job_id = await signed_in(browser, served, hand), await hand.start()
    await hand.say(job_id, *numbered(250))
    await page.goto(f"/jobs/{job_id}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await expect(page.get_by_role("button", name="Cancel this job")).to_be_visible()
    await hand.succeed(job_id)
    await expect(page.get_by_role("button", name="Cancel this job")).to_be_hidden()
    spoken = await page.locator("#lines li").all_text_contents()
    assert len(spoken) == 201
    assert "line 51" in spoken[0]
    assert f"{served.address}/jobs/{job_id}" not in asked


@on_one_database
async def test_a_list_is_renewed_under_the_keyboard_which_keeps_its_place(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    page, job_id = await signed_in(browser, served, hand), await hand.submit()
    await page.goto("/jobs?state=queued")
    link = page.get_by_role("link", name=f"Job {job_id}")
    await link.focus()
    newer = await hand.submit()
    await expect(page.get_by_role("link", name=f"Job {newer}")).to_be_visible(timeout=15_000)
    await expect(link).to_be_focused()
    await hand.do(jobs.cancel, job_id)
    await expect(link).to_be_hidden(timeout=15_000)
    await expect(page.locator("#jobs")).to_be_focused()


@on_one_database
async def test_a_list_says_since_when_it_is_not_renewed(
    clean: Place, secret: str, hand: Hand, browser: Browser, tmp_path: Path
) -> None:
    port = real.free_port()
    with serving(clean, tmp_path / "web.log", port=port) as served:
        page = await signed_in(browser, served, hand)
    status = page.get_by_role("status")
    old = re.compile(r"^Not renewed since \d\d:\d\d:\d\d UTC$")
    await expect(status).to_have_text(old)
    with serving(clean, tmp_path / "web.log", port=port):
        await expect(status).to_have_text("")
        await hand.do(tokens.revoke, "operator")
        await expect(status).to_have_text(re.compile("^Not renewed since"))
        await status.get_by_role("link", name="sign in again").click()
        await expect(page).to_have_url(f"{served.address}/sign-in?next=%2Fjobs")


@on_one_database
async def test_why_a_job_is_where_it_is_stays_true_until_it_ends(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    page, job_id = await signed_in(browser, served, hand), await hand.start()
    said = complaints(page)
    await page.goto(f"/jobs/{job_id}")
    why = page.locator("#why")
    first = await why.text_content()
    await hand.do(attempts.keep, job_id, 1, 6000.0)  # a longer lease, and no event
    await expect(why).not_to_have_text(first or "")
    await expect(why).to_contain_text("the job is given back at")
    await hand.succeed(job_id)
    await expect(why).to_be_hidden()
    assert said == []


@on_one_database
async def test_the_traceback_of_a_failure_is_there_live_and_later(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    page, job_id = await signed_in(browser, served, hand), await hand.start()
    said = complaints(page)
    await page.goto(f"/jobs/{job_id}")
    await expect(page.locator("#connection")).to_have_text("live")
    await hand.do(attempts.fail, job_id, 1, "RuntimeError: <b>no", traceback='File "<b>", line 1')
    for _ in range(2):
        told = page.locator("#lines .failed details")
        await expect(told.locator("pre")).to_be_hidden()
        await told.locator("summary").click()
        await expect(told.locator("pre")).to_have_text('File "<b>", line 1')
        await expect(page.locator("#outcome")).to_contain_text("RuntimeError: <b>no")
        await page.reload()
    assert said == []


@on_one_database
async def test_an_sms_is_written_counted_and_sent(
    served: Served, secret: str, hand: Hand, browser: Browser, worker: Path
) -> None:
    page = await signed_in(browser, served, hand)
    said = complaints(page)
    await page.get_by_role("link", name="Send SMS").click()
    for text in TEXTS:
        await page.get_by_label("Text").fill(text)
        counted = sms.segments(text)
        await expect(page.locator("#segments")).to_contain_text(f"{counted.count} SMS")
        await expect(page.locator("#segments")).to_contain_text(counted.encoding)
    await page.get_by_label("To").fill("+86 138 0013 8000")
    send = page.get_by_role("button", name="Send")
    hold = "text.form.addEventListener('submit', (event) => event.preventDefault(), {once: true})"
    await page.evaluate(hold)
    await send.click()
    await expect(send).to_be_disabled()
    await page.evaluate("dispatchEvent(new Event('pageshow'))")
    await send.click()
    await expect(page.locator(".now .badge")).to_have_text("succeeded")
    assert said == []


@on_one_database
async def test_the_api_is_read_and_tried_on_its_page(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    page = await signed_in(browser, served, hand)
    said = complaints(page)
    await page.get_by_role("link", name="API").click()
    operation = page.locator("#operations-default-get_list_queues")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".live-responses-table")).to_contain_text('"name": "celery"')
    assert said == []


@on_one_database
async def test_a_phone_shows_every_page_without_scrolling_sideways(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    page = await signed_in(browser, served, hand, **phone)
    job_id = await hand.start()
    await hand.say(job_id, "x" * 500, progress=3)
    named = {"interval": 5, "timezone": "America/Argentina/ComodRivadavia", "args": [1]}
    schedule_id = (await hand.do(schedules.create, "x" * 255, COUNT, **named)).id
    await hand.do(tokens.create, "x" * 100, Role.VIEWER)
    await hand.do(lambda session: session.execute(update(Token).values(role=Role.ADMIN)))
    for path in (
        "/jobs", f"/jobs?q={'x' * 255}", f"/jobs/{job_id}", "/schedules",
        f"/schedules/{schedule_id}", f"/schedules/{schedule_id}/delete", "/queues", "/workers",
        "/sms", "/audit", "/docs", "/sign-in", "/nowhere",
    ):  # fmt: skip
        await page.goto(path)
        wide = await page.locator("html").evaluate("e => e.scrollWidth - e.clientWidth")
        dark = await page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        assert (wide, dark) == (0, "rgb(12, 18, 21)"), path


@on_one_database
async def test_without_javascript_a_job_is_cancelled_all_the_same(
    served: Served, secret: str, hand: Hand, browser: Browser
) -> None:
    page = await signed_in(browser, served, hand, java_script_enabled=False)
    await hand.submit()
    await page.goto("/jobs")
    await page.get_by_role("link", name=re.compile("^Job ")).click()
    await page.get_by_role("button", name="Cancel this job").click()
    await expect(page.locator(".now .badge")).to_have_text("cancelled")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
