"""The two places a session can be kept in, by the same tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from quart import Quart, redirect, session
from redis import Redis

from quart_app import sessions
from quart_app.errors import Problem
from tests import real


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


def small_app(backend: str, redis_url: str) -> Quart:
    app = Quart("small")
    app.config.update(SESSION_BACKEND=backend, REDIS_URL=redis_url, SECRET_KEY="for the tests")
    app.config.update(SESSION_COOKIE_NAME="small", SESSION_COOKIE_SAMESITE="Lax")
    sessions.init_app(app)
    under_way, go_on = app.extensions["slow"] = asyncio.Event(), asyncio.Event()

    @app.get("/free")
    async def free() -> str:
        return "free"

    @app.get("/count")
    async def count() -> str:
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    @app.get("/slow")
    async def slow() -> str:
        """Changes the session of somebody who signs out meanwhile."""
        session["count"] = 1
        under_way.set()
        await go_on.wait()
        return "slow"

    @app.get("/sign-in")
    async def sign_in() -> Any:
        session.clear()
        session["token"] = "of ada"
        return redirect("/count")

    @app.get("/token")
    async def token() -> str:
        return str(session.get("token", "nobody"))

    @app.get("/sign-out")
    async def sign_out() -> str:
        session.clear()
        return "bye"

    @app.errorhandler(Problem)
    async def dress(problem: Problem) -> tuple[str, int]:
        return str(problem), problem.status

    return app


@pytest.fixture(params=["cookie", "redis"])
async def app(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Quart]:
    app = small_app(request.param, redis_url)
    async with app.test_app():
        yield app


async def text(client: Any, path: str) -> str:
    return str(await (await client.get(path)).get_data(as_text=True))


def cookie(client: Any) -> Any:
    return next((kept for kept in client.cookie_jar if kept.name == "small"), None)


async def test_a_session_crosses_requests_and_belongs_to_one_browser(app: Quart) -> None:
    ours, theirs = app.test_client(), app.test_client()
    assert [await text(ours, "/count") for _ in range(3)] == ["1", "2", "3"]
    assert await text(theirs, "/count") == "1"


async def test_the_cookie_is_for_http_only_and_for_this_site(app: Quart) -> None:
    answer = await app.test_client().get("/count")
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "SameSite=Lax" in answer.headers["Set-Cookie"]


async def test_the_cookie_goes_when_the_browser_is_closed(app: Quart) -> None:
    cookie = (await app.test_client().get("/sign-in")).headers["Set-Cookie"]
    assert "Max-Age" not in cookie
    assert "Expires" not in cookie


async def test_signing_out_ends_the_session(app: Quart) -> None:
    client = app.test_client()
    await client.get("/sign-in")
    await client.get("/sign-out")
    assert cookie(client) is None
    assert await text(client, "/count") == "1"


async def test_a_forged_cookie_is_worth_nothing(app: Quart) -> None:
    client = app.test_client()
    client.set_cookie("localhost", "small", "forged")
    assert await text(client, "/count") == "1"


async def test_with_redis_the_cookie_holds_an_id_and_nothing_else(redis_url: str) -> None:
    async with small_app("redis", redis_url).test_app() as running:
        client = running.test_client()
        await client.get("/sign-in")
    with Redis.from_url(redis_url) as kept:
        assert len(cookie(client).value) == 43
        assert all(cookie(client).value.encode() not in key for key in kept.keys("*"))


async def test_with_redis_signing_in_takes_a_new_id_and_ends_the_old_one(redis_url: str) -> None:
    async with small_app("redis", redis_url).test_app() as running:
        client, thief = running.test_client(), running.test_client()
        await client.get("/count")
        thief.set_cookie("localhost", "small", cookie(client).value)
        await client.get("/sign-in")
        assert await text(thief, "/count") == "1"


async def test_with_redis_a_request_that_was_under_way_undoes_no_sign_out(redis_url: str) -> None:
    app = small_app("redis", redis_url)
    under_way, go_on = app.extensions["slow"]
    async with app.test_app() as running:
        client, tab = running.test_client(), running.test_client()
        await client.get("/sign-in")
        kept = cookie(client).value
        tab.set_cookie("localhost", "small", kept)
        slow = asyncio.create_task(tab.get("/slow"))
        await under_way.wait()
        await client.get("/sign-out")
        go_on.set()
        assert "Set-Cookie" not in (await slow).headers
        tab.set_cookie("localhost", "small", kept)
        assert await text(tab, "/token") == "nobody"


@pytest.mark.parametrize(("path", "seconds"), [("/count", 1800), ("/sign-in", 31 * 86_400)])
async def test_redis_keeps_a_session_for_long_once_somebody_has_signed_in(
    redis_url: str, path: str, seconds: int
) -> None:
    with Redis.from_url(redis_url) as kept:
        kept.flushall()
        async with small_app("redis", redis_url).test_app() as running:
            await running.test_client().get(path)
        assert seconds - 60 < int(str(kept.ttl(kept.keys("*")[0]))) <= seconds


NOT_READ = "Sessions are not available; nothing was changed. Try again soon."
NOT_KEPT = "Sessions are not available; yours was not kept. Try again soon."


@pytest.mark.parametrize(
    ("known", "path", "told"),
    [("known before", "/count", NOT_READ), ("", "/count", NOT_KEPT), ("", "/sign-in", NOT_KEPT)],
)
async def test_without_redis_only_what_needs_a_session_answers_503(
    known: str, path: str, told: str, closed: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = small_app("redis", f"redis://{closed}")
    async with app.test_app() as running:
        client = running.test_client()
        if known:
            client.set_cookie("localhost", "small", known)
        assert await text(client, "/free") == "free"
        answer = await client.get(path)
    assert (answer.status_code, await answer.get_data(as_text=True)) == (503, told)
    assert "Location" not in answer.headers
    assert len(caplog.records) == 1
