"""What the API answers with, as models that describe it."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from quart_app.models import JobState
from quart_app.web.schemas import Strict

Stamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Next = Annotated[
    str | None, Field(description="The `cursor` to go on with; null when there is nothing more.")
]


class Progress(Strict):
    """The newest thing that a job said of how far it is."""

    current: float | None
    total: float | None
    message: str


class Job(Strict):
    """One run of a task."""

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    state: JobState
    attempt: int = Field(description="How often it was started.")
    max_attempts: int
    progress: Progress | None
    result: Any
    error: str | None
    accepted_at: Stamp
    published_at: Stamp | None = Field(description="Null while the broker has not got it.")
    eta: Stamp | None
    started_at: Stamp | None
    finished_at: Stamp | None
    worker: str | None
    cancel_requested: bool
    schedule: str | None = Field(description="The id of the schedule that made it.")
    retry_of: str | None = Field(description="The id of the job it was made from.")
    duplicate: Literal[True] = Field(
        True, description="There only where a live job of the same unique_key is the answer."
    )


class Jobs(Strict):
    """A page of jobs, the newest first."""

    items: list[Job]
    next: Next


class Ids(Strict):
    """The ids of the jobs, in the order of the request."""

    ids: list[str]


class Counts(Strict):
    """What became of the jobs that matched."""

    matched: int
    done: int
    refused: int = Field(description="Moved on before their turn, or their unique_key is taken.")
    next: Next


class Event(Strict):
    """Something that happened to a job; what else it has depends on its type."""

    model_config = ConfigDict(extra="allow")

    job: str
    seq: int
    at: Stamp
    type: Literal["state", "log"]


class Events(Strict):
    """What happened to a job, in order."""

    items: list[Event]


class Why(Strict):
    """Why a job is where it is, and the facts that this rests on."""

    model_config = ConfigDict(extra="allow")

    reason: str = Field(examples=["behind"])
    detail: str = Field(examples=["It waits behind 3 jobs in queue `celery`."])


class Task(Strict):
    """A task that a job can be made of; `parameters` is the JSON Schema of its arguments."""

    name: str
    doc: str
    queue: str
    max_attempts: int
    parameters: dict[str, Any]


class Tasks(Strict):
    """All tasks, by name."""

    items: list[Task]


class Running(Strict):
    """A job that runs now, and in which process."""

    id: str
    task: str
    attempt: int
    started_at: Stamp | None
    pid: int | None


class Worker(Strict):
    """One that is online; `age` is the seconds since it was last heard of."""

    name: str
    pid: int | None
    pool: str | None
    concurrency: int | None
    queues: list[str] | None
    version: str | None
    celery: str | None
    started_at: Stamp
    seen_at: Stamp
    age: float
    jobs: list[Running]


class Workers(Strict):
    """Those that are online, by name."""

    items: list[Worker]


class Oldest(Strict):
    """The queued job that has waited longest, and for how many seconds."""

    id: str
    accepted_at: Stamp
    age: float


class Queue(Strict):
    """`depth` counts the jobs that a worker could take now."""

    name: str
    depth: int
    scheduled: int
    retrying: int
    running: int
    oldest: Oldest | None
    workers: int
    in_per_minute: float
    out_per_minute: float


class Queues(Strict):
    """All queues, by name."""

    items: list[Queue]


class Target(Strict):
    """What was changed; of a token `id` is its name."""

    kind: str = Field(examples=["job", "schedule", "token", "database"])
    id: str | None = Field(description="Null where one call was for many, and for strangers.")


class AuditEntry(Strict):
    """That somebody changed something."""

    id: str
    at: Stamp
    actor: str = Field(description="A token's name, or cli: and a user; empty for a stranger.")
    via: Literal["api", "console", "cli", "code"]
    action: str = Field(examples=["job.cancel"])
    target: Target
    request_id: str | None
    detail: dict[str, Any]


class Audit(Strict):
    """A page of the audit log, the newest first."""

    items: list[AuditEntry]
    next: Next


class Alive(Strict):
    """This process answers."""

    status: Literal["ok"]


class Ready(Strict):
    """Each part, "ok" or what is wrong with it."""

    status: str = Field(examples=["ready"])
    parts: dict[str, str]
