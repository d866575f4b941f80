"""The study guide's sentences about contexts and proxies, as they are true in Quart.

docs/contexts.md lists each sentence with the test here that proves it.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from quart import (
    Quart,
    copy_current_app_context,
    copy_current_request_context,
    copy_current_websocket_context,
    current_app,
    g,
    render_template_string,
    request,
    session,
    websocket,
)
from quart.globals import app_ctx, request_ctx
from quart.signals import appcontext_pushed
from quart.utils import run_sync

PROXIES: dict[str, Any] = {
    "current_app": current_app,
    "g": g,
    "request": request,
    "session": session,
}


@pytest.fixture
async def plain() -> AsyncIterator[Quart]:
    """A small application of its own: what is shown here is Quart's doing, not ours."""
    app = Quart("plain", root_path="/")
    app.secret_key = "for the tests"

    @app.get("/count")
    async def count() -> str:
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    @app.get("/mine/<value>")
    async def mine(value: str) -> dict[str, str]:
        g.value = value
        await asyncio.sleep(0)
        return {"g": g.value, "request": request.path}

    async with app.test_app():
        yield app


async def call(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """What a bare ASGI server sees of one request without a body."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, incoming.get, send)
    return sent


async def test_the_app_is_called_by_the_server_with_scope_receive_and_send(plain: Quart) -> None:
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/count", "raw_path": b"/count", "query_string": b"",
        "root_path": "", "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    start, *body = await call(plain, scope)
    assert (start["status"], body[0]["body"]) == (200, b"1")


async def test_request_is_set_first_then_the_app_context_then_the_session(plain: Quart) -> None:
    seen: list[tuple[str, bool, bool]] = []
    context = plain.test_request_context("/")
    open_session = plain.session_interface.open_session

    def look(at: str) -> None:
        seen.append((at, bool(request_ctx), bool(app_ctx) and context.session is not None))

    async def opening(app: Any, request_: Any) -> Any:
        look("session")
        return await open_session(app, request_)

    plain.session_interface.open_session = opening  # type: ignore[method-assign, assignment]
    with appcontext_pushed.connected_to(lambda _app: look("app context"), plain):
        async with context:
            look("view")
    assert seen == [("app context", True, False), ("session", True, False), ("view", True, True)]


async def test_the_proxies_can_be_used_once_both_contexts_are_pushed(plain: Quart) -> None:
    async with plain.test_request_context("/somewhere", method="GET"):
        g.color = "green"
        assert (current_app.name, request.path, g.color) == ("plain", "/somewhere", "green")
        assert session.get("nothing") is None


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_outside_its_context_raises_and_says_which_is_missing(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"Not within a(n app| request)"):
        _ = PROXIES[name].anything


def test_websocket_is_a_fifth_proxy_with_a_context_of_its_own() -> None:
    with pytest.raises(RuntimeError, match="Not within a websocket context"):
        _ = websocket.path


async def test_request_is_the_request_of_the_request_context(plain: Quart) -> None:
    async with plain.test_request_context("/here") as context:
        assert request == context.request


async def test_session_is_the_session_of_the_request_context(plain: Quart) -> None:
    async with plain.test_request_context("/here") as context:
        session["color"] = "green"
        assert session == context.session


async def test_session_is_kept_in_the_browser_and_so_crosses_requests(plain: Quart) -> None:
    client = plain.test_client()
    answers = [await (await client.get("/count")).get_data(as_text=True) for _ in range(3)]
    assert answers == ["1", "2", "3"]
    assert await (await plain.test_client().get("/count")).get_data(as_text=True) == "1"


async def test_current_app_is_the_instance_on_top(plain: Quart) -> None:
    other = Quart("other")
    async with plain.app_context():
        async with other.app_context():
            assert current_app == other
        assert current_app == plain


async def test_g_belongs_to_the_app_context_and_is_new_each_time(plain: Quart) -> None:
    async with plain.app_context():
        g.color = "green"
    async with plain.app_context():
        assert "color" not in g


async def test_a_thousand_requests_at_once_never_see_each_others_values(plain: Quart) -> None:
    async def one(value: str) -> bool:
        answer = await plain.test_client().get(f"/mine/{value}")
        return bool(await answer.get_json() == {"g": value, "request": f"/mine/{value}"})

    assert all(await asyncio.gather(*(one(str(number)) for number in range(1000))))


async def test_a_thread_of_its_own_sees_no_context(plain: Quart) -> None:
    seen: list[str] = []

    def look() -> None:
        try:
            seen.append(current_app.name)
        except RuntimeError as error:
            seen.append(str(error))

    async with plain.app_context():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == ["Not within an app context"]


async def test_a_thread_started_with_run_sync_or_a_copied_context_sees_it(plain: Quart) -> None:
    async with plain.app_context():
        g.color = "green"
        copied = contextvars.copy_context()
        assert await run_sync(lambda: g.color)() == "green"
        assert await asyncio.to_thread(lambda: g.color) == "green"
        assert copied.run(lambda: g.color) == "green"


async def test_an_asyncio_task_sees_the_context_it_was_made_in(plain: Quart) -> None:
    async def look() -> str:
        return str(g.color)

    async with plain.app_context():
        g.color = "green"
        assert await asyncio.create_task(look()) == "green"


async def test_a_background_task_has_an_app_context_and_no_request(plain: Quart) -> None:
    seen: list[str] = []

    async def later() -> None:
        seen.append(current_app.name)
        try:
            seen.append(request.path)
        except RuntimeError as error:
            seen.append(str(error))

    plain.add_background_task(later)
    await asyncio.gather(*plain.background_tasks)
    assert seen == ["plain", "Not within a request context"]


async def test_the_life_of_a_context_is_from_push_to_pop(plain: Quart) -> None:
    context = plain.app_context()
    await context.push()
    assert current_app == plain
    await context.pop(None)
    assert not app_ctx


async def test_own_code_runs_in_an_app_context(plain: Quart) -> None:
    async with plain.app_context():
        assert current_app.secret_key == "for the tests"


async def test_a_request_context_needs_values(plain: Quart) -> None:
    with pytest.raises(TypeError, match="path"):
        plain.test_request_context()  # type: ignore[call-arg]
    async with plain.test_request_context("/x?page=2", method="POST", json={"a": 1}):
        assert (request.method, request.args["page"], await request.get_json()) == (
            "POST", "2", {"a": 1},
        )  # fmt: skip


async def test_a_copied_request_context_goes_with_a_function(plain: Quart) -> None:
    async with plain.test_request_context("/there"):

        @copy_current_request_context
        async def look() -> str:
            return request.path

    assert await asyncio.create_task(look()) == "/there"


async def test_a_copied_app_context_goes_with_a_function(plain: Quart) -> None:
    async with plain.app_context():
        g.color = "green"

        @copy_current_app_context
        async def look() -> str:
            return str(g.color)

    assert await asyncio.create_task(look()) == "green"


async def test_a_copied_websocket_context_goes_with_a_function(plain: Quart) -> None:
    @plain.websocket("/talk")
    async def talk() -> None:
        @copy_current_websocket_context
        async def path() -> str:
            return websocket.path

        await websocket.send(await asyncio.create_task(path()))

    async with plain.test_client().websocket("/talk") as socket:
        assert await asyncio.wait_for(socket.receive(), 5) == "/talk"


async def test_templates_are_jinja_and_see_the_proxies(plain: Quart) -> None:
    async with plain.test_request_context("/page"):
        g.color, source = "green", "{{ request.path }} {{ g.color }} {{ config.TESTING }} {{ '<' }}"
        assert await render_template_string(source) == "/page green False &lt;"
