"""What the API takes and gives, as models that validate it and describe it."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails

from quart_app import newjobs
from quart_app.bulk import Mark, Tally
from quart_app.errors import Invalid
from quart_app.events import timestamp
from quart_app.jobjson import time_json
from quart_app.lists import Filters, Place
from quart_app.models import JobState
from quart_app.newjobs import LONGEST_DELAY, YEARS
from quart_app.queues import Queue
from quart_app.why import Why
from quart_app.workers import Worker, pid_of

Model = TypeVar("Model", bound=BaseModel)
_PLACE = r"[0-9]{1,17}\.[0-9a-f-]{36}"
_CURSOR = rf"^{_PLACE}$"
_MARK = rf"^({'|'.join(JobState)})\.({_PLACE})?$"


def _is_text(value: Any) -> Any:
    """A bare number would else be taken for seconds since 1970."""
    if not (isinstance(value, str) and re.match(r"\d{4}-", value)):
        raise ValueError("expected ISO 8601 with an offset, such as 2030-01-01T09:00:00+08:00")
    return value


def _in_range(at: datetime) -> datetime:
    if at.year not in YEARS:
        raise ValueError(f"expected a year from {YEARS.start} to {YEARS.stop - 1}")
    return at.astimezone(UTC)


def _is_plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected text without NUL characters")
    if newjobs.is_broken(text):
        raise ValueError("expected text without lone surrogates")
    return text


# The patterns are for the description alone: what is checked says more clearly what is wrong.
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_is_text),
    AfterValidator(_in_range),
    Field(json_schema_extra={"pattern": r"^(19[7-9]|2\d\d)\d-"}),
]
Plain = Annotated[
    str, AfterValidator(_is_plain), Field(json_schema_extra={"pattern": r"^[^\x00]*$"})
]
Cursor = Annotated[str | None, Field(pattern=r"^[0-9a-f-]{36}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewJob(Strict):
    """A job to submit; `delay` (seconds) and `eta` exclude each other."""

    task: Plain = Field(min_length=1, max_length=255, examples=["tasks.background.async_send_sms"])
    args: list[Any] = Field(default_factory=list, max_length=100)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    queue: Plain | None = Field(None, min_length=1, max_length=100)
    priority: int = Field(
        0, ge=0, le=9, strict=True, description="0 goes first, 9 last, as Celery on Redis."
    )
    delay: float | None = Field(
        None, ge=0, le=LONGEST_DELAY, strict=True, description="Seconds to wait."
    )
    eta: Moment | None = Field(None, description="ISO 8601 with offset.")
    unique_key: Plain | None = Field(None, min_length=1, max_length=255)


class Batch(Strict):
    jobs: list[NewJob] = Field(min_length=1, max_length=10_000)


class Changes(Strict):
    """The arguments of a new job; those that are not given stay as they were."""

    args: list[Any] | None = Field(None, max_length=100)
    kwargs: dict[str, Any] | None = None


class Text(Strict):
    """What `POST /task` may be given; without it a greeting is sent to a number nobody has."""

    to: str | None = None
    text: str | None = None


class JobFilter(Strict):
    state: JobState | None = None
    task: Plain | None = Field(None, max_length=255)
    queue: Plain | None = Field(None, max_length=100)
    q: Plain | None = Field(None, max_length=255, description="Searched in arguments and errors.")
    since: Moment | None = Field(None, description="Accepted then or later.")
    until: Moment | None = Field(None, description="Accepted then or earlier.")

    def filters(self) -> Filters:
        return Filters(
            state=self.state, task=self.task, queue=self.queue, text=self.q or None,
            since=self.since, until=self.until,
        )  # fmt: skip


class Search(JobFilter):
    """Filters of a list of jobs."""

    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, pattern=_CURSOR, description="The `next` of the page before.")

    def after(self) -> Place | None:
        return Place.read(self.cursor) if self.cursor else None


class ManyJobs(JobFilter):
    """Which jobs to change: at least one filter is needed, and all that match are meant."""

    dry_run: bool = Field(False, strict=True, description="Only counts.")
    cursor: str | None = Field(
        None, pattern=_MARK, description="The `next` of a call with the same filters."
    )

    def after(self) -> Mark | None:
        return Mark.read(self.cursor) if self.cursor else None


class EventSearch(Strict):
    after: int = Field(0, ge=0, le=2**31 - 1)


def filters_of(search: BaseModel) -> dict[str, Any]:
    """What narrows a list, as its address has it; not which page of it."""
    given = search.model_dump(mode="json", exclude={"limit", "cursor"})
    return {name: value for name, value in given.items() if value not in (None, "")}


def read(model: type[Model], value: Any) -> Model:
    """The value as the model; raises Invalid naming the first field that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Invalid:
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"])) or "body"
    return Invalid(field, _said(first))


def _said(wrong: ErrorDetails) -> str:
    """In the words of who sent JSON, where pydantic speaks of Python's types."""
    is_text = isinstance(wrong["input"], str)
    match wrong["type"]:
        case "dict_type" | "model_type":
            return "expected an object"
        case "too_long" if is_text:
            return f"expected at most {wrong['ctx']['max_length']} characters"
        case "too_short" if is_text:
            return f"expected at least {wrong['ctx']['min_length']} characters"
    return wrong["msg"].removeprefix("Value error, ")


def tally_json(tally: Tally) -> dict[str, Any]:
    """`refused` are those that had moved on when their turn came, or whose unique_key is taken."""
    return {
        "matched": tally.matched,
        "done": tally.done,
        "refused": tally.refused,
        "next": str(tally.rest) if tally.rest else None,
    }


def worker_json(worker: Worker) -> dict[str, Any]:
    told = ("pid", "pool", "concurrency", "queues", "version", "celery")
    running = [
        {
            "id": job.id,
            "task": job.task,
            "attempt": job.attempt,
            "started_at": time_json(job.started_at),
            "pid": pid_of(job),
        }
        for job in worker.jobs
    ]
    return {
        "name": worker.name,
        **{name: worker.info.get(name) for name in told},
        "started_at": timestamp(worker.node.started_at),
        "seen_at": timestamp(worker.node.seen_at),
        "age": round(worker.age, 3),
        "jobs": running,
    }


def queue_json(queue: Queue) -> dict[str, Any]:
    """`depth` counts the jobs that a worker could take now; `oldest` has waited longest of them."""
    oldest = queue.oldest and {
        "id": queue.oldest.id,
        "accepted_at": timestamp(queue.oldest.accepted_at),
        "age": round(queue.oldest.age, 3),
    }
    states = (JobState.SCHEDULED, JobState.RETRYING, JobState.RUNNING)
    return {
        "name": queue.name,
        "depth": queue.lines[JobState.QUEUED].count,
        **{state.value: queue.lines[state].count for state in states},
        "oldest": oldest,
        "workers": queue.workers,
        "in_per_minute": queue.in_per_minute,
        "out_per_minute": queue.out_per_minute,
    }


def why_json(why: Why) -> dict[str, Any]:
    facts = {
        name: timestamp(fact) if isinstance(fact, datetime) else fact
        for name, fact in why.data.items()
    }
    return {"reason": why.reason, "detail": why.detail, **facts}
