"""What operators and their tools ask: alive, ready, who works, and what waits."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from quart import Blueprint, Response, current_app, request
from quart_schema import document_response

from quart_app import db, health, publisher, queues, workers
from quart_app.health import Part
from quart_app.web import answers, problems, schemas, threads

blueprint = Blueprint("ops", __name__)

_PATIENCE = 5.0
# Of its own: a part that does not answer may hold a thread for a while.
_threads = ThreadPoolExecutor(2, "health")


@blueprint.get("/healthz")
@document_response(answers.Alive)
async def healthz() -> Any:
    """Alive: this process answers."""
    return {"status": "ok"}


@blueprint.get("/readyz")
@document_response(answers.Ready)
async def readyz() -> Any:
    """Ready: every part is there; 503 names what is missing, and has the same `parts`."""
    parts = await _check()
    shown = {part.name: part.fault or "ok" for part in parts}
    if missing := [part.name for part in parts if part.fault]:
        detail = "missing: " + ", ".join(missing)
        again = problems.RETRY_AFTER
        return await problems.answer(503, "Not ready", detail, parts=shown, headers=again)
    return {"status": "ready", "parts": shown}


@blueprint.get("/metrics")
async def metrics() -> Any:
    """The figures of this installation for Prometheus, in the format it accepts."""
    kept, live = current_app.extensions["metrics"], current_app.extensions["live"]
    text, content_type = await kept.scrape(request.headers.get("Accept", ""), live.readers)
    return Response(text, content_type=content_type)


@blueprint.get("/api/workers")
@document_response(answers.Workers)
async def list_workers() -> Any:
    """Who is online and what runs where; `age` is the seconds since it was last heard of."""
    return {"items": [schemas.worker_json(worker) for worker in await db.read(workers.online)]}


@blueprint.get("/api/queues")
@document_response(answers.Queues)
async def list_queues() -> Any:
    """What waits in each queue, and for how long; who listens; jobs that come and go a minute."""
    return await threads.answer(lambda: {"items": queues_json()})


def queues_json() -> list[dict[str, Any]]:
    """For a thread: each queue takes a question, and callers may name very many."""
    with db.session(reading=True) as session:
        return [schemas.queue_json(queue) for queue in queues.everyone(session)]


async def _check() -> list[Part]:
    loop = asyncio.get_running_loop()
    checking = loop.run_in_executor(_threads, health.check, db.get(), publisher.get())
    try:
        return await asyncio.wait_for(checking, _PATIENCE)
    except TimeoutError:
        # The broker is asked with a deadline of its own.
        return [Part("database", f"does not answer within {_PATIENCE:.0f} s")]
