"""What the API takes and gives, as models that validate it and describe it."""

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from quart_app.events import timestamp
from quart_app.models import Job, JobState

TaskName = Field(min_length=1, max_length=255, examples=["tasks.background.async_send_sms"])


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewJob(Strict):
    """A job to submit; `delay` (seconds) and `eta` exclude each other."""

    task: str = TaskName
    args: list[Any] = Field(default_factory=list, max_length=100)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    queue: str | None = Field(None, max_length=100)
    priority: int = Field(0, ge=0, le=9, description="0 goes first, 9 last, as Celery on Redis.")
    delay: float | None = Field(None, ge=0, le=316_224_000, description="Seconds to wait.")
    eta: AwareDatetime | None = Field(None, description="ISO 8601 with offset.")
    unique_key: str | None = Field(None, min_length=1, max_length=255)


class Batch(Strict):
    jobs: list[NewJob] = Field(min_length=1, max_length=10_000)


class Text(Strict):
    """What `POST /task` may be given; without it a greeting is sent to a number nobody has."""

    to: str | None = None
    text: str | None = None


class Search(Strict):
    """Filters of a list of jobs."""

    state: JobState | None = None
    task: str | None = None
    queue: str | None = None
    q: str | None = Field(None, max_length=255, description="Searched in arguments and errors.")
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, pattern=r"^[0-9a-f-]{36}$")


class EventSearch(Strict):
    after: int = Field(0, ge=0, le=2**31 - 1)


_TIMES = ("accepted_at", "published_at", "eta", "started_at", "finished_at")
_AS_THEY_ARE = (
    "id", "task", "args", "kwargs", "queue", "priority", "attempt", "max_attempts", "progress",
    "result", "error", "worker",
)  # fmt: skip


def job_json(job: Job) -> dict[str, Any]:
    """The job as JSON; `duplicate` is there only when it is true."""
    shown = {name: getattr(job, name) for name in _AS_THEY_ARE}
    shown |= {name: _time(getattr(job, name)) for name in _TIMES}
    shown |= {"state": job.state.value, "schedule": job.schedule_id}
    return shown | ({"duplicate": True} if job.duplicate else {})


def _time(at: datetime | None) -> str | None:
    return timestamp(at) if at else None
