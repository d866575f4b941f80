"""What a caller asks for, checked against the task it names, and the row it becomes."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import uuid_utils
from celery import Celery
from quart import current_app

from quart_app import actors, baggage, traces
from quart_app.baggage import Baggage
from quart_app.errors import Invalid, NoSuchTask
from quart_app.models import Job, JobState

# A queue's name is a key of Redis: kombu's own keys and ours are none.
_QUEUE_NAME = re.compile(r"(?!unacked|_kombu|celeryev|quartermaster:)[\w.:-]{1,100}(?<!pidbox)")
_MOST_LEVELS = 100
#: Characters of JSON: they have to fit into a packet of every database.
MOST_ARGUMENTS = 1024 * 1024
#: Seconds.
LONGEST_DELAY = 10 * 366 * 86400
#: Those that a time to come may be in.
YEARS = range(1970, 3000)


class Task(Protocol):
    """What the ledger asks of a registered task."""

    name: str
    #: The queue of its jobs when the caller names none.
    destination: str
    max_attempts: int
    on_lost: str
    #: The name and the type of its one parameter, where that is a pydantic model.
    wrapped: tuple[str, Any] | None

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], Any]:
        """The arguments as they are to be stored; raises Invalid naming the wrong one."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a caller asks for: `delay` in seconds or `eta`, an aware datetime, but not both."""

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    priority: int = 0
    delay: float | None = None
    eta: datetime | None = None
    unique_key: str | None = None
    #: Digests of the caller with its Idempotency-Key, and of the request's body.
    idempotency_key: str | None = None
    idempotency_body: str | None = None
    schedule_id: str | None = None
    #: The job that it is made from, with other arguments.
    retry_of: str | None = None
    #: What travels with it; that of the request or the task which submits it, if not given.
    baggage: Baggage | None = None

    @property
    def has_key(self) -> bool:
        """Whether there may be a job already that this one would repeat."""
        return bool(self.unique_key or self.idempotency_key or self.schedule_id)


def row(new: NewJob) -> Job:
    """The job's row, checked; `start` gives it the times that its transaction knows.

    Every way to a job or a schedule leads through here: whoever acts may use the task, or Denied
    is raised.
    """
    actors.check(new.task)
    task = task_named(new.task)
    _storable("args", new.args)
    _storable("kwargs", new.kwargs)
    _storable("unique_key", new.unique_key)
    if len(new.unique_key or "") > 255:
        raise Invalid("unique_key", "expected at most 255 characters")
    args, kwargs = task.check(new.args, new.kwargs)
    if len(json.dumps([args, kwargs], ensure_ascii=False)) > MOST_ARGUMENTS:
        raise Invalid("kwargs", f"expected arguments of at most {MOST_ARGUMENTS} characters in all")
    _check_start(new)
    job = Job()
    # Set one by one, each would be noted as a change: a third of all that this function takes.
    vars(job).update(
        id=str(uuid_utils.uuid7()),
        task=new.task,
        args=args,
        kwargs=kwargs,
        queue=_queue(new, task),
        priority=_within("priority", new.priority, 0, 9),
        attempt=0,
        losses=0,
        rings=0,
        max_attempts=task.max_attempts,
        on_lost=task.on_lost,
        last_seq=1,
        cancel_requested=False,
        unique_key=new.unique_key,
        live_key=digest(new.task, new.unique_key) if new.unique_key else None,
        idempotency_key=new.idempotency_key,
        idempotency_body=new.idempotency_body,
        schedule_id=new.schedule_id,
        retry_of=new.retry_of,
        context=(new.baggage or traces.onward(baggage.current())).known(),
    )
    return job


def start(job: Job, new: NewJob, at: datetime) -> None:
    """Accepts it at this time of the database."""
    available_at = max(new.eta or at, at) + timedelta(seconds=new.delay or 0)
    is_later = available_at > at
    vars(job).update(
        accepted_at=at,
        available_at=available_at,
        state=JobState.SCHEDULED if is_later else JobState.QUEUED,
        eta=new.eta or (available_at if is_later else None),
    )


def tasks_of(celery: Celery) -> dict[str, Any]:
    """Those that a job can be made of, by name and in its order; Celery's own are not."""
    return {name: task for name, task in sorted(celery.tasks.items()) if hasattr(task, "check")}


def task_named(name: str) -> Task:
    found: Task | None = current_app.extensions["celery"].tasks.get(name)
    if found is None or not hasattr(found, "check"):
        raise NoSuchTask(name)
    return found


def check_time(field: str, at: datetime) -> None:
    if at.tzinfo is None:
        raise Invalid(field, "expected a time with an offset, such as 2030-01-01T09:00:00+08:00")
    if at.year not in YEARS:
        raise Invalid(field, f"expected a time of the years {YEARS.start} to {YEARS.stop - 1}")


def check_queue(name: str) -> str:
    """The name; raises Invalid for what Redis or Celery would take for something else."""
    if not _QUEUE_NAME.fullmatch(name):
        expected = "expected up to 100 letters, digits, dots or dashes, no reserved name"
        raise Invalid("queue", expected)
    return name


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _check_start(new: NewJob) -> None:
    if new.delay is not None and new.eta is not None:
        raise Invalid("delay", "give delay or eta, not both")
    if new.eta is not None:
        check_time("eta", new.eta)
    _within("delay", new.delay or 0, 0, LONGEST_DELAY)


def _storable(where: str, value: Any, levels: int = _MOST_LEVELS) -> None:
    """Raises Invalid, naming the place, for what cannot be kept as it is."""
    if levels == 0:
        raise Invalid(where[:100], f"expected at most {_MOST_LEVELS} levels")
    if isinstance(value, str) and ("\0" in value or is_broken(value)):
        raise Invalid(where, "expected text without NUL characters or lone surrogates")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(where, "expected a finite number")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _storable(where, key, levels - 1)
            _storable(f"{where}.{key}", inner, levels - 1)
    if isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _storable(f"{where}.{index}", inner, levels - 1)


def is_broken(text: str) -> bool:
    """Whether there is a lone surrogate in it, which no encoding takes."""
    # None of them is printable, as nearly all texts are.
    return not text.isprintable() and any("\ud800" <= each <= "\udfff" for each in text)


def _queue(new: NewJob, task: Task) -> str:
    name = check_queue(new.queue or task.destination)
    _check_is_configured(name)
    return name


def _check_is_configured(queue: str) -> None:
    """Where Celery is not to make queues by itself, it makes no message for any other."""
    queues = current_app.extensions["celery"].amqp.queues
    if not (queues.create_missing or queue in queues):
        raise Invalid("queue", f"expected one of {', '.join(sorted(queues))}")


def _within(field: str, value: float, low: int, high: int) -> Any:
    if not low <= value <= high:
        raise Invalid(field, f"expected a number from {low} to {high}")
    return value
