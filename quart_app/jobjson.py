"""A job as JSON: the same for the API and for the commands."""

from datetime import datetime
from typing import Any

from quart_app.events import timestamp
from quart_app.lists import Page
from quart_app.models import Job

_TIMES = ("accepted_at", "published_at", "eta", "started_at", "finished_at")
_AS_THEY_ARE = (
    "id", "task", "args", "kwargs", "queue", "priority", "state", "attempt", "max_attempts",
    "progress", "result", "error", "worker", "cancel_requested",
)  # fmt: skip


def job_json(job: Job) -> dict[str, Any]:
    """The job as JSON; `duplicate` is there only when it is true."""
    shown = {name: getattr(job, name) for name in _AS_THEY_ARE}
    shown |= {name: time_json(getattr(job, name)) for name in _TIMES}
    shown |= {"state": job.state.value, "schedule": job.schedule_id, "retry_of": job.retry_of}
    return shown | ({"duplicate": True} if job.duplicate else {})


def page_json(page: Page) -> dict[str, Any]:
    """`next` is the cursor of the following page, null when there is nothing more."""
    return {
        "items": [job_json(job) for job in page.jobs],
        "next": str(page.rest) if page.rest else None,
    }


def time_json(at: datetime | None) -> str | None:
    return timestamp(at) if at else None
