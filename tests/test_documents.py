"""The picture and the mistakes of docs/contexts.md, held against what really happens."""

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, current_app, g, render_template_string, request, session, websocket
from quart.globals import request_ctx, websocket_ctx
from quart.sessions import SecureCookieSessionInterface
from quart.signals import appcontext_pushed

from quart_app.celeryext import QuartCelery
from tests import real

PAGE = (real.ROOT / "docs" / "contexts.md").read_text()
#: Of the third column: what the ledger adds to a plain task.
LEDGERS = {"claim the job: attempt, lease", "record the outcome"}


def column(number: int) -> list[str]:
    """The steps in a column of the picture."""
    lines = [re.split("[│├└]", line)[1:] for line in PAGE.split("```")[1].splitlines()]
    steps = (cells[number].strip(" ─") for cells in lines if cells)
    return [step for step in steps if step]


class NotedSessions(SecureCookieSessionInterface):
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    async def open_session(self, app: Quart, request: Any) -> Any:
        self._notes.append("open session")
        return await super().open_session(app, request)

    async def save_session(self, app: Quart, session: Any, response: Any) -> None:
        self._notes.append("save session")
        await super().save_session(app, session, response)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def noted(notes: list[str]) -> Quart:
    """An application that notes each step in the words of the picture."""
    app = Quart("noted", root_path="/")
    app.secret_key = "for the tests"
    app.session_interface = NotedSessions(notes)
    for what in ("request", "websocket"):
        getattr(app, f"before_{what}")(partial(notes.append, f"before_{what}"))
        getattr(app, f"after_{what}")(partial(passing_on, f"after_{what}", notes))
        getattr(app, f"teardown_{what}")(partial(passing_on, f"teardown_{what}", notes))
    app.teardown_appcontext(partial(passing_on, "pop: teardown_appcontext", notes))
    return app


def passing_on(step: str, notes: list[str], given: Any) -> Any:
    notes.append(step)
    return given


def note_pushes(notes: list[str]) -> Any:
    def pushed(_: Quart) -> None:
        for name, context in (("request", request_ctx), ("websocket", websocket_ctx)):
            notes.extend([f"push {name}"] * bool(context))
        notes.append(f"push app context, {'old' if [*g] else 'new'} g")

    return appcontext_pushed.connected_to(pushed)


async def test_a_request_takes_the_steps_of_the_picture(noted: Quart, notes: list[str]) -> None:
    @noted.get("/")
    async def view() -> str:
        notes.append("the view")
        return ""

    with note_pushes(notes):
        await noted.test_client().get("/")
    assert notes == column(0)


async def test_a_websocket_takes_the_steps_of_the_picture(noted: Quart, notes: list[str]) -> None:
    @noted.websocket("/")
    async def handler() -> None:
        notes.append("the handler, until it ends")
        await websocket.send("")

    with note_pushes(notes):
        await talk(noted, notes)
    assert notes == column(1)


async def talk(noted: Quart, notes: list[str]) -> None:
    """Opens its socket, and returns when that has ended."""

    async def has_ended() -> bool:
        return "pop: teardown_appcontext" in notes

    async with noted.test_client().websocket("/") as socket:
        await socket.receive()
        await real.eventually(has_ended)


def test_a_task_takes_the_steps_of_the_picture(noted: Quart, notes: list[str]) -> None:
    @QuartCelery(noted).celery.task
    def body() -> None:
        notes.append("the body")

    with note_pushes(notes):
        body()
    assert notes == [step for step in column(2) if step not in LEDGERS]


async def test_what_a_websocket_changes_in_a_cookies_session_is_lost(
    noted: Quart, caplog: pytest.LogCaptureFixture, notes: list[str]
) -> None:
    @noted.websocket("/")
    async def handler() -> None:
        session["color"] = "green"
        await websocket.send("")

    with caplog.at_level(logging.ERROR, "noted"):
        await talk(noted, notes)
    lost = "Secure Cookie Session modified during websocket handling"
    assert lost in caplog.text
    assert f"`{lost}" in PAGE


def test_a_circular_import_says_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from tasks import send_sms\next = 1")
    (tmp_path / "tasks.py").write_text("from app import ext\ndef send_sms(): ...")
    argv = [sys.executable, "-c", "import app"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = "ImportError: cannot import name 'ext' from partially initialized module 'app'"
    assert said in done.stderr
    assert f"`{said}`" in PAGE


async def outside() -> None:
    _ = current_app.name


async def request_in_a_task() -> None:
    async with Quart("shop").app_context():
        _ = request.path


async def websocket_in_a_view() -> None:
    async with Quart("shop").test_request_context("/"):
        _ = websocket.path


async def without_async() -> None:
    with Quart("shop").app_context():  # type: ignore[attr-defined]
        pass


async def without_a_path() -> None:
    Quart("shop").test_request_context()  # type: ignore[call-arg]


async def kept_in_g() -> None:
    app = Quart("shop")
    async with app.app_context():
        g.color = "green"
    async with app.app_context():
        _ = g.color


async def without_await() -> None:
    async with Quart("shop").test_request_context("/", method="POST", json={"a": 1}):
        body: Any = request.get_json()
        body.close()
        body["a"]


async def page_without_await() -> None:
    app = Quart("shop")
    async with app.test_request_context("/"):
        page: Any = render_template_string("")
        page.close()
        await app.make_response(page)


async def a_loop_in_a_loop() -> None:
    work = asyncio.sleep(0)
    try:
        asyncio.run(work)
    finally:
        work.close()


Mistake = Callable[[], Coroutine[Any, Any, None]]
MISTAKES: dict[Mistake, str] = {
    outside: "RuntimeError: Not within an app context",
    request_in_a_task: "RuntimeError: Not within a request context",
    websocket_in_a_view: "RuntimeError: Not within a websocket context",
    without_async: "TypeError: 'AppContext' object does not support the context manager protocol",
    without_a_path: "TypeError: … missing 1 required positional argument: 'path'",
    kept_in_g: "AttributeError: color",
    without_await: "TypeError: 'coroutine' object is not subscriptable",
    page_without_await: "TypeError: The response value type (coroutine) is not valid",
    a_loop_in_a_loop: "RuntimeError: asyncio.run() cannot be called from a running event loop",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
async def test_a_mistake_gives_the_error_that_the_page_shows(mistake: Mistake) -> None:
    shown = MISTAKES[mistake]
    with pytest.raises((RuntimeError, TypeError, AttributeError)) as raised:
        await mistake()
    said = f"{type(raised.value).__name__}: {raised.value}"
    assert all(part in said for part in shown.split(" … "))
    assert f"`{shown}`" in PAGE
