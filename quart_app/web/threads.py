"""Long work with the database, in threads of its own: stuck, it stops no connection and no file."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from quart import current_app
from sqlalchemy.exc import TimeoutError as NoAnswer

P = ParamSpec("P")
T = TypeVar("T")

_threads = ThreadPoolExecutor(8, "database")


async def run(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call returns, made in the caller's context."""
    calling = partial(copy_context().run, call, *args, **kwargs)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, calling)


async def read(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `run`, for what only reads; raises NoAnswer after REQUEST_PATIENCE seconds."""
    try:
        async with asyncio.timeout(current_app.config["REQUEST_PATIENCE"]) as limit:
            return await run(call, *args, **kwargs)
    except TimeoutError:
        if not limit.expired():  # it is the call's own
            raise
        raise NoAnswer("the database did not answer in time") from None
