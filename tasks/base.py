"""`task`: makes a function a task whose every run is a job in the ledger."""

import inspect
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Retry
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_jsonable_python
from quart import current_app, g
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from quart_app import attempts, db, jobs, reporter
from quart_app.attempts import Fenced
from quart_app.celeryext import AppContextTask
from quart_app.errors import Invalid, Permanent, Problem
from quart_app.models import Job
from quart_app.reporter import Run

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

logger = logging.getLogger(__name__)


def task(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`@task` or `@task(bind=True, max_attempts=3, queue="slow", retry_backoff=2.0)`.

    `max_attempts` is how often a failing job is started (1), `retry_backoff` the seconds before
    its second attempt (2), doubled each time. Celery's own options are taken too.
    """
    if function is None:
        return partial(task, **options)
    return shared_task(base=JobTask, **options)(function)


class JobTask(AppContextTask):
    """A task that takes its arguments from its job's row, and records there how it ended."""

    abstract = True
    queue: str | None = None
    max_attempts = 1
    retry_backoff = 2.0
    retry_backoff_max = 600.0

    def progress(self, current: float, total: float | None = None, message: str = "") -> None:
        """Shows how far the job is; never blocks the task and never fails it."""
        if run := self._run:
            run.progress(current, total, message)

    def log(self, message: str, level: str = "info") -> None:
        """Adds a line to the job's log, kept and shown live; never blocks the task."""
        if run := self._run:
            run.log(message, level)

    @property
    def cancelled(self) -> bool:
        """True when the job was cancelled or given to another worker: stop as soon as you can."""
        run = self._run
        return run is not None and (run.cancelled or run.lost)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """As Celery's, but through the ledger: the job is durable when this returns."""
        chained = options.keys() - {"countdown", "eta", "queue", "priority", "task_id"}
        if chained or self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, **options)
        wanted = {name: options[name] for name in ("eta", "queue", "priority") if name in options}
        with db.session() as session:
            job = jobs.submit(
                session, self.name, args=args or (), kwargs=kwargs or {},
                delay=options.get("countdown"), **wanted,
            )  # fmt: skip
        return self.AsyncResult(job.id)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], Any]:
        """The arguments as they are to be stored; raises Invalid naming the wrong one."""
        model, names = self._bind(args, kwargs)
        stored = model.model_dump(mode="json", exclude_unset=True, by_alias=True)
        return [stored.pop(name) for name in names], stored

    @cached_property
    def parameters(self) -> type[BaseModel]:
        """The signature as a model: its JSON Schema is what callers see."""
        signature = inspect.signature(self.run, eval_str=True)
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        extra: Any = "allow" if inspect.Parameter.VAR_KEYWORD in kinds else "forbid"
        named = [p for p in signature.parameters.values() if p.kind not in _VARIABLE]
        # Fields get names of their own, since a parameter may be called anything.
        fields: Any = {f"p{index}": _field(parameter) for index, parameter in enumerate(named)}
        config = ConfigDict(extra=extra, arbitrary_types_allowed=True)
        return create_model(self.name, __config__=config, **fields)

    def perform(self, *args: Any, **kwargs: Any) -> Any:
        """One attempt: claim the job, run its body, record the outcome under the fence."""
        if self.request.called_directly or self.request.is_eager:
            return super().perform(*args, **kwargs)
        g.job = job = self._claim(args, kwargs)
        self.request.run = run = reporter.get().start(job)
        try:
            result = self._call(job)
            self._record(run, lambda s: attempts.succeed(s, job.id, job.attempt, result))
        except Fenced:
            raise Ignore(f"job {job.id} went to another attempt") from None
        except Exception as error:
            self._failed(job, run, error)
            raise
        finally:
            reporter.get().end(run)
        return result

    @property
    def _run(self) -> Run | None:
        return getattr(self.request, "run", None)

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[BaseModel, list[str]]:
        """The arguments in their types, and the names of those given by position."""
        aliases = [str(field.alias) for field in self.parameters.model_fields.values()]
        names = aliases[: len(args)]
        if len(names) < len(args):
            raise Invalid("args", f"{self.name} takes {len(names)} at most")
        if twice := set(names) & kwargs.keys():
            raise Invalid(f"kwargs.{min(twice)}", "given in args as well")
        given = dict(zip(names, args, strict=True)) | dict(kwargs)
        try:
            return self.parameters.model_validate(given), names
        except ValidationError as error:
            raise _invalid(error, names) from None

    def _claim(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
        worker, job_id = self.request.hostname or "", self.request.id
        lease = current_app.config["JOB_LEASE"]
        with db.session() as session:
            job = attempts.claim(session, job_id, self.name, worker, lease)
            if job is None and self._adopt(session, args, kwargs):
                job = attempts.claim(session, job_id, self.name, worker, lease)
        if job is None:
            raise Ignore(f"nothing to do for message {job_id}")
        return job

    def _adopt(self, session: Session, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Makes the row of a message sent by another Celery client, where that is allowed."""
        if session.get(Job, self.request.id) is not None:
            return False
        if not current_app.config["ALLOW_DIRECT_CALLS"]:
            logger.warning("Refused message %s: ALLOW_DIRECT_CALLS is off.", self.request.id)
            return False
        sent = self.request.delivery_info or {}
        new = jobs.NewJob(task=self.name, args=args, kwargs=kwargs, queue=sent.get("routing_key"))
        try:
            return jobs.adopt(session, self.request.id, new)
        except (Problem, ValueError) as error:
            logger.warning("Refused message %s: %s", self.request.id, error)
            return False

    def _call(self, job: Job) -> Any:
        """Runs the body with the row's arguments; the result as it is to be stored."""
        model, names = self._bind(job.args, job.kwargs)
        values = {
            str(field.alias): getattr(model, key)
            for key, field in type(model).model_fields.items()
            if key in model.model_fields_set
        } | (model.model_extra or {})
        positional = [values.pop(name) for name in names]
        result = to_jsonable_python(super().perform(*positional, **values))
        json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
        return result

    def _record(self, run: Run, end: Callable[[Session], None]) -> None:
        """Writes the outcome; while the database is away it is held, not lost."""
        pause = 0.1
        while True:
            try:
                with run.lock, db.session() as session:
                    if run.is_unsaid:
                        run.store(session, current_app.config["JOB_LEASE"])
                    end(session)
                return
            except (OperationalError, InterfaceError) as error:
                name = type(error).__name__
                logger.warning("Job %s: its outcome waits for the database: %s", run.job_id, name)
                time.sleep(pause)
                pause = min(pause * 2, 5)

    def _failed(self, job: Job, run: Run, error: Exception) -> None:
        """Records a failure: final, or to be tried again, which Celery is told by its Retry."""
        text = f"{type(error).__name__}: {error}"
        if run.cancelled:
            self._record(run, lambda s: attempts.cancel(s, job.id, job.attempt))
        elif isinstance(error, Permanent) or job.attempt >= job.max_attempts:
            self._record(run, lambda s: attempts.fail(s, job.id, job.attempt, text))
        else:
            wait = min(self.retry_backoff * 2 ** (job.attempt - 1), self.retry_backoff_max)
            wait *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing
            self._record(run, lambda s: attempts.postpone(s, job.id, job.attempt, text, wait))
            raise Retry(str(error), error, wait) from error


def _field(parameter: inspect.Parameter) -> tuple[Any, Any]:
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    if parameter.default is parameter.empty:
        return annotation, Field(alias=parameter.name)
    return annotation, Field(parameter.default, alias=parameter.name)


def _invalid(error: ValidationError, names: Sequence[str]) -> Invalid:
    """The first wrong parameter, named as the caller wrote it, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    name, *inner = [str(part) for part in first["loc"]] or [""]
    where = f"args.{names.index(name)}" if name in names else f"kwargs.{name}"
    message = first["msg"].removeprefix("Value error, ")
    return Invalid(".".join([where, *inner]), message[:1].lower() + message[1:])
