"""The same work as plain Celery is commonly set up, to compare: a web, a task, nothing else.

`CHAOS_SETTINGS` is a JSON object of Celery settings; none of them means Celery's own defaults.
"""

import asyncio
import json
import os
import time
from typing import Any

from celery import Celery, signals
from quart import Quart, request
from sqlalchemy.exc import DBAPIError

from bench.chaos import tables
from quart_app.db import Database

app = Celery("plain", broker=os.environ.get("REDIS_URL"))
app.conf.update(json.loads(os.environ.get("CHAOS_SETTINGS", "{}")))
app.conf.beat_schedule = {"tick": {"task": "bench.chaos.plain.tick", "schedule": 1.0}}
database = Database(os.environ.get("DATABASE_URL", "sqlite://"))
web = Quart(__name__)


@app.task(bind=True, autoretry_for=(DBAPIError,), retry_backoff=1, max_retries=20)
def work(self: Any, key: str, ms: int) -> None:
    """Says that it starts, takes its time and leaves its effect."""
    attempt = self.request.retries + 1
    with database.session() as session:
        tables.started(session, key, attempt)
    time.sleep(ms / 1000)
    with database.session() as session:
        tables.worked(session, key, attempt)


@app.task
def tick() -> None:
    """Something for beat to send."""


@web.post("/api/jobs")
async def submit() -> Any:
    """The key becomes the task's id, which is all that Celery knows of idempotency."""
    key = request.headers["Idempotency-Key"]
    kwargs = (await request.get_json())["kwargs"]
    await asyncio.to_thread(work.apply_async, [key, kwargs["ms"]], task_id=key)
    return {"id": key}, 202


@web.get("/healthz")
async def healthz() -> Any:
    return {"status": "ok"}


@signals.worker_process_init.connect
def _forked(**_: Any) -> None:
    database.forget_connections()
