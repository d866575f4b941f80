"""Long work in threads of its own: stuck in the database, it stops no connection and no file."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from quart import Response, current_app, render_template
from sqlalchemy.exc import TimeoutError as NoAnswer

P = ParamSpec("P")
T = TypeVar("T")

_threads = ThreadPoolExecutor(8, "database")
_rendering = ThreadPoolExecutor(2, "pages")


async def run(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call returns, made in the caller's context."""
    return await _in(_threads, partial(call, *args, **kwargs))


async def read(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `run`, for what only reads; raises NoAnswer after REQUEST_PATIENCE seconds."""
    try:
        async with asyncio.timeout(current_app.config["REQUEST_PATIENCE"]) as limit:
            return await run(call, *args, **kwargs)
    except TimeoutError:
        if not limit.expired():  # it is the call's own
            raise
        raise NoAnswer("the database did not answer in time") from None


async def answer(call: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Response:
    """As `read`, in JSON, which takes as long to write as to read where the rows are many."""
    text = await read(lambda: current_app.json.dumps(call(*args, **kwargs)))
    return Response(text, content_type="application/json")


async def render(template: str, **context: Any) -> str:
    """The page, for one whose many rows take longer than other requests should wait."""
    return await _in(_rendering, lambda: asyncio.run(render_template(template, **context)))


async def _in(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, copy_context().run, call)
