"""The task that chaos has run: its effect is one row, recorded with its success."""

import time
from typing import Any

from quart import g

from bench.chaos import tables
from quart_app import db
from tasks.base import task


@task(bind=True, max_attempts=20, retry_backoff=0.2, retry_backoff_max=2.0)
def work(self: Any, ms: int) -> int:
    """Says that it starts, takes its time and leaves its effect."""
    with db.session() as session:
        tables.started(session, g.job.id, g.job.attempt)
    time.sleep(ms / 1000)
    self.at_success(tables.worked, g.job.id, g.job.attempt)
    return int(g.job.attempt)
