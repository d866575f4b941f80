"""Who may do what: tokens, sessions, roles, and proof that a form is our own."""

import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from itsdangerous import TimestampSigner
from quart import Quart

from quart_app import tokens
from quart_app.models import Role
from tests.conftest import make_token

BROWSER = {"Accept": "text/html,*/*;q=0.8"}


async def csrf(client: Any, page: str = "/sign-in") -> str:
    text = await (await client.get(page)).get_data(as_text=True)
    found = re.search('name="csrf_token" value="([^"]+)"', text)
    assert found, text
    return found[1]


async def sign_in(client: Any, token: str, **form: str) -> Any:
    form = {"token": token, "csrf_token": await csrf(client), **form}
    return await client.post("/sign-in", form=form)


async def signed_in(app: Quart, secret: str) -> Any:
    """A browser that has a session of this token."""
    client = app.test_client()
    assert (await sign_in(client, secret)).status_code == 302
    return client


@pytest.fixture
async def browser(app: Quart, token: str) -> Any:
    return await signed_in(app, token)


@pytest.fixture
async def job(client: Any) -> str:
    """The path of the page of a job that waits."""
    body = {"task": "tests.sample_tasks.add", "args": [1], "delay": 60}
    return f"/jobs/{(await (await client.post('/api/jobs', json=body)).get_json())['id']}"


async def test_programs_are_told_how_to_say_who_they_are(app: Quart) -> None:
    answer = await app.test_client().get("/api/jobs")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    for sent in ("Bearer", "Bearer ", "Basic YTpi", "alone"):
        answer = await app.test_client().get("/api/jobs", headers={"Authorization": sent})
        assert (await answer.get_json())["detail"] == "Send Authorization: Bearer TOKEN."
    assert answer.content_type == "application/problem+json"


async def test_a_stranger_gets_the_sign_in_form_and_goes_on_from_there(
    app: Quart, token: str
) -> None:
    client = app.test_client()
    form = await client.get("/jobs?state=failed", headers=BROWSER)
    assert form.status_code == 401
    assert 'value="/jobs?state=failed"' in await form.get_data(as_text=True)
    answer = await sign_in(client, token, next="/jobs?state=failed")
    assert answer.headers["Location"] == "/jobs?state=failed"


async def test_a_page_takes_a_token_as_well(client: Any) -> None:
    assert (await client.get("/jobs")).status_code == 200


async def test_a_revoked_token_is_refused_at_once(app: Quart, client: Any, browser: Any) -> None:
    with app.extensions["db"].session() as session:
        tokens.revoke(session, "operator")
    assert (await client.get("/api/jobs")).status_code == 401
    assert (await browser.get("/jobs")).status_code == 401


async def test_pages_loaded_at_once_share_one_proof(browser: Any) -> None:
    pages = [await browser.get(path) for path in ("/jobs", "/schedules")]
    assert all("Set-Cookie" not in page.headers for page in pages)


async def test_a_wrong_token_does_not_sign_in(app: Quart) -> None:
    client = app.test_client()
    answer = await sign_in(client, "wrong")
    assert answer.status_code == 401
    assert "not valid" in await answer.get_data(as_text=True)
    assert (await client.get("/jobs")).status_code == 401


async def test_a_link_signs_in_once(app: Quart, token: str) -> None:
    with app.extensions["db"].session() as session:
        code = tokens.make_link(session, "operator")
    first, second = app.test_client(), app.test_client()
    assert (await first.get(f"/sign-in/{code}")).status_code == 302
    assert (await first.get("/jobs")).status_code == 200
    assert (await second.get(f"/sign-in/{code}")).status_code == 401
    assert (await second.get("/sign-in/nonsense")).status_code == 401


async def test_signing_out_ends_the_session(browser: Any) -> None:
    answer = await browser.post("/sign-out", form={"csrf_token": await csrf(browser, "/jobs")})
    assert answer.status_code == 302
    assert (await browser.get("/jobs")).status_code == 401


ELSEWHERE = [
    "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example",
    "/\n/evil.example", "\\\\evil.example", "javascript:alert(1)", " //evil.example", "jobs", "",
]  # fmt: skip


async def test_signing_in_never_leads_to_another_site(app: Quart, token: str) -> None:
    for wanted in ELSEWHERE:
        answer = await sign_in(app.test_client(), token, next=wanted)
        assert answer.headers["Location"] == "/jobs", wanted


async def test_a_form_without_our_own_proof_is_refused(
    app: Quart, browser: Any, job: str, token: str
) -> None:
    other = app.test_client()
    await sign_in(other, token)
    foreign = await csrf(other, "/sms")
    for sent in ("", "nonsense", foreign, foreign[:-1]):
        answer = await browser.post(f"{job}/cancel", form={"csrf_token": sent})
        assert answer.status_code == 403, sent
    assert "scheduled" in await (await browser.get(job)).get_data(as_text=True)


@pytest.mark.parametrize(("age", "status"), [(12 * 3600 - 60, 302), (12 * 3600 + 1, 403)])
async def test_a_form_is_taken_for_twelve_hours(
    app: Quart, token: str, job: str, age: int, status: int
) -> None:
    with pytest.MonkeyPatch.context() as then:
        then.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) - age)
        browser = await signed_in(app, token)
        form = {"csrf_token": await csrf(browser, job)}
    assert (await browser.post(f"{job}/cancel", form=form)).status_code == status


FOREIGN = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost.evil"},
    {"Origin": "http://localhost:1"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]  # fmt: skip


async def test_a_form_from_another_site_is_refused(browser: Any, job: str) -> None:
    form = {"csrf_token": await csrf(browser, job)}
    for headers in FOREIGN:
        answer = await browser.post(f"{job}/cancel", form=form, headers=headers)
        assert answer.status_code == 403, headers


async def test_a_form_of_our_own_is_taken(browser: Any, job: str) -> None:
    form = {"csrf_token": await csrf(browser, job)}
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    answer = await browser.post(f"{job}/cancel", form=form, headers=headers)
    assert answer.status_code == 302
    assert "cancelled" in await (await browser.get(job)).get_data(as_text=True)


async def test_a_session_may_read_the_api_but_not_write(browser: Any) -> None:
    body = {"task": "tests.sample_tasks.add", "args": [1]}
    assert (await browser.get("/api/jobs")).status_code == 200
    assert (await browser.post("/api/jobs", json=body)).status_code == 403
    assert (await browser.post("/task")).status_code == 403


async def test_only_known_hosts_are_served(app: Quart, client: Any) -> None:
    for host in ("evil.example", "localhost.evil.example", "evil.example:8000", ""):
        assert (await client.get("/api/jobs", headers={"Host": host})).status_code == 400, host
        assert (await client.get("/healthz", headers={"Host": host})).status_code == 200
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert (await client.get("/api/jobs", headers={"Host": host})).status_code == 200, host


async def test_cookies_are_strict(app: Quart, token: str) -> None:
    answer = await sign_in(app.test_client(), token)
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie


async def test_off_loopback_cookies_are_secure(clean: Any) -> None:
    app = clean.app(ALLOWED_HOSTS=["console.example"])
    answer = await app.test_client().get("/sign-in", headers={"Host": "console.example"})
    assert "Secure" in answer.headers["Set-Cookie"]


async def test_a_browser_that_kept_no_cookie_is_told_what_it_needs(app: Quart, token: str) -> None:
    form = {"token": token, "csrf_token": await csrf(app.test_client())}
    answer = await app.test_client().post("/sign-in", form=form)
    assert answer.status_code == 403
    assert "the console needs HTTPS" in await answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "url", ["/jobs", "/api/jobs", "/nowhere", "/static/app.css", "/sign-in", "/healthz"]
)
async def test_every_answer_has_its_security_headers(browser: Any, url: str) -> None:
    headers = (await browser.get(url)).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert ("no-store" in headers["Cache-Control"]) is not url.startswith("/static")


async def test_no_secret_is_shown_or_logged(
    app: Quart, browser: Any, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    await app.test_client().get("/api/jobs", headers={"Authorization": f"Bearer {token}x"})
    pages = [await browser.get(url) for url in ("/jobs", "/sms", "/api/tasks", "/openapi.json")]
    shown = caplog.text + "".join([await page.get_data(as_text=True) for page in pages])
    for secret in (token, app.config["SECRET_KEY"], tokens.digest(token)):
        assert secret not in shown


async def test_an_origin_that_is_no_address_is_refused(app: Any) -> None:
    answer = await app.test_client().post("/sign-in", headers={"Origin": "http://["}, form={})
    assert answer.status_code == 403


async def test_a_look_at_the_headers_does_not_use_up_a_link(app: Any, token: str) -> None:
    with app.extensions["db"].session() as session:
        code = tokens.make_link(session, "operator")
    client = app.test_client()
    assert (await client.head(f"/sign-in/{code}")).status_code == 200
    assert (await client.get(f"/sign-in/{code}")).status_code == 302


async def test_with_redis_signing_in_takes_a_new_session_and_ends_the_one_before(
    clean: Any,
) -> None:
    token = make_token(clean.database, Role.OPERATOR)
    async with clean.app(SESSION_BACKEND="redis").test_app() as running:
        browser, thief = running.test_client(), running.test_client()
        await browser.get("/sign-in")
        (before,) = browser.cookie_jar
        thief.set_cookie("localhost", before.name, before.value)
        await sign_in(browser, token)
        assert [cookie.value for cookie in browser.cookie_jar] != [before.value]
        answer = await thief.get("/jobs", headers=BROWSER)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (401, True)


@pytest.fixture
async def sessionless(clean: Any, closed: str) -> AsyncIterator[Quart]:
    """The application while Redis, where its sessions are, is away."""
    nowhere = f"redis://{closed}"
    async with clean.app(SESSION_BACKEND="redis", REDIS_URL=nowhere).test_app() as running:
        yield running.app


@pytest.mark.parametrize("cookie", ["", "known before"])
async def test_with_no_place_for_sessions_a_stranger_hears_so_and_programs_go_on(
    sessionless: Quart, token: str, cookie: str
) -> None:
    client = sessionless.test_client()
    if cookie:
        client.set_cookie("localhost", "quartermaster", cookie)
    answer = await client.get("/jobs", headers=BROWSER)
    assert answer.status_code == 503
    assert "Sessions are not available" in await answer.get_data(as_text=True)
    bearer = {"Authorization": f"Bearer {token}"}
    for path in ("/api/jobs", "/jobs"):
        assert (await client.get(path, headers=BROWSER | bearer)).status_code == 200
    assert (await client.get("/jobs/nothing", headers=BROWSER | bearer)).status_code == 404
