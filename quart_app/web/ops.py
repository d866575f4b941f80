"""What operators and their tools ask: alive, and ready."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from quart import Blueprint

from quart_app import db, health, publisher
from quart_app.health import Part

blueprint = Blueprint("ops", __name__)

_PATIENCE = 5.0
# Of its own: a part that does not answer may hold a thread for a while.
_threads = ThreadPoolExecutor(2, "health")


@blueprint.get("/healthz")
async def healthz() -> Any:
    """Alive: this process answers."""
    return {"status": "ok"}


@blueprint.get("/readyz")
async def readyz() -> Any:
    """Ready: every part is there; 503 names what is missing."""
    parts = await _check()
    missing = [part.name for part in parts if part.fault]
    status = "missing: " + ", ".join(missing) if missing else "ready"
    shown = {part.name: part.fault or "ok" for part in parts}
    return {"status": status, "parts": shown}, 503 if missing else 200


async def _check() -> list[Part]:
    loop = asyncio.get_running_loop()
    checking = loop.run_in_executor(_threads, health.check, db.get(), publisher.get())
    try:
        return await asyncio.wait_for(checking, _PATIENCE)
    except TimeoutError:
        # The broker is asked with a deadline of its own.
        return [Part("database", f"does not answer within {_PATIENCE:.0f} s")]
