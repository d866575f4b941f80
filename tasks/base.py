"""`task`: makes a function a task whose every run is a job in the ledger."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property, partial
from typing import Any

from celery import shared_task
from celery.exceptions import Retry
from celery.local import Proxy
from pydantic import BaseModel
from quart import current_app
from sqlalchemy.orm import Session

from quart_app import attempts, baggage, db, jobs
from quart_app.celeryext import AppContextTask, in_app_context
from quart_app.errors import Permanent
from quart_app.models import Job
from quart_app.reporter import Run
from tasks import attempt, retrying, tracebacks
from tasks.parameters import Parameters, bind, model_of, only_model

_LEDGER_OPTIONS = {"countdown", "eta", "queue", "priority"}
#: Of `@task`: ours, and those of Celery's that are often given.
_OPTIONS = {
    "bind", "name", "base", "queue", "priority", "serializer", "ignore_result", "pydantic",
    "time_limit", "soft_time_limit", "rate_limit", "acks_late", "track_started",
    "max_attempts", "on_lost", "retry_backoff", "retry_backoff_max", "retry_jitter",
    "max_retries", "retry_kwargs", "autoretry_for", "dont_autoretry_for", "default_retry_delay",
}  # fmt: skip


def task(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`@task` or `@task(bind=True, max_attempts=3, queue="slow", retry_backoff=2.0)`.

    `max_attempts` is how often a failing job is started (1), `retry_backoff` the seconds before
    its second attempt (2), doubled each time; `on_lost="fail"` is for what must not be started
    again when its worker was lost ("retry"). Celery's own options are taken too; of those for
    retrying, `max_retries` sets max_attempts and `autoretry_for` what is tried again at all.
    """
    if function is None:
        return partial(task, **options)
    if options.get("on_lost", "retry") not in ("retry", "fail"):
        raise ValueError(f"on_lost = {options['on_lost']!r}: expected 'retry' or 'fail'")
    for name in options.keys() - _OPTIONS:  # any other may be somebody's own: Celery takes all
        if like := get_close_matches(name, _OPTIONS, 1, 0.8):
            raise TypeError(f"{function.__name__} has no option {name}: is {like[0]} meant?")
    if not options.get("bind") and "self" in [*inspect.signature(function).parameters][:1]:
        raise TypeError(f"{function.__name__} takes self: add bind=True")
    shared = shared_task(base=JobTask, **retrying.in_our_words(options))(function)
    return Proxy(partial(_of_this_application, shared))


def _of_this_application(shared: Any) -> Any:
    """In a context its application's own; Celery has a current application in workers alone."""
    celery = current_app.extensions.get("celery") if current_app else None
    return celery.tasks.get(shared.name, shared) if celery else shared


class JobTask(AppContextTask):
    """A task that takes its arguments from its job's row, and records there how it ended."""

    abstract = True
    Request = "tasks.request:JobRequest"
    default_queue: str | None = None
    max_attempts = 1
    on_lost = "retry"
    retry_backoff: float = 2.0
    retry_backoff_max: float = 600.0
    #: A line of the worker's log will do for it, and no traceback.
    throws: retrying.Kinds = (Permanent,)
    retry_for: retrying.Kinds = (Exception,)
    never_retry_for: retrying.Kinds = ()

    @property
    def queue(self) -> str | None:
        """As Celery knows it: None where its routes decide."""
        return self.default_queue

    @cached_property
    def destination(self) -> str:
        """The queue of its jobs when the caller names none: its own, or by CELERY_TASK_ROUTES.

        Those are asked once.
        """
        if self.queue:
            return self.queue
        routed = self.app.amqp.router.route({}, self.name).get("queue")
        return str(getattr(routed, "name", routed) or self.app.conf.task_default_queue)

    def progress(self, current: float, total: float | None = None, message: str = "") -> None:
        """Shows how far the job is; never blocks the task and never fails it."""
        if run := self._run:
            run.progress(current, total, message)

    def log(self, message: str, level: str = "info") -> None:
        """Adds a line to the job's log, kept and shown live; never blocks the task."""
        if run := self._run:
            run.log(message, level)

    def at_success(self, verb: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Has `verb(session, …)` called in the transaction that records the job's success.

        What it writes is there if and only if this attempt is the one that succeeded: one that
        fails, is cancelled or comes too late leaves nothing of it. What it raises fails the
        attempt. It should be quick, and do no more than the session undoes: when the database goes
        away meanwhile, it is called again. Where there is no job, as in a direct call, it is
        called at once.
        """

        def call(session: Session) -> object:
            return verb(session, *args, **kwargs)

        if self._run:
            self.request.at_success = [*getattr(self.request, "at_success", ()), call]
            return
        with db.session() as session:
            call(session)

    @property
    def cancelled(self) -> bool:
        """True when the job was cancelled, has ended or is another's: stop as soon as you can."""
        run = self._run
        if run is None or not (run.cancelled or run.lost):
            return False
        run.heeded = True
        return True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """As Celery's, but through the ledger: the job is durable when this returns.

        With options that only a message of Celery can carry (`link`, `expires`, `task_id` …, as
        chains and groups have them) it is a direct call, for workers that allow those. Raises
        RuntimeError where a loop runs.
        """
        _refuse_to_block_a_loop()
        app = self._owner
        if unknown := sorted(options.keys() - _LEDGER_OPTIONS):
            if not (app.config["ALLOW_DIRECT_CALLS"] or self.app.conf.task_always_eager):
                raise ValueError(f"{', '.join(unknown)}: needs ALLOW_DIRECT_CALLS")
            options["headers"] = self._carried() | (options.get("headers") or {})
            return super().apply_async(args, kwargs, **options)
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, **options)
        options["delay"] = options.pop("countdown", None)
        job = in_app_context(app, partial(self._submit, args or (), kwargs or {}, options))
        return self.AsyncResult(job.id)

    async def aapply_async(
        self, args: Any = None, kwargs: Any = None, *, deadline: float = 5.0, **options: Any
    ) -> Any:
        """As `apply_async`, from a running loop: the job is durable when this returns."""
        if options.keys() - _LEDGER_OPTIONS or self.app.conf.task_always_eager:
            return await super().aapply_async(args, kwargs, deadline=deadline, **options)
        options["delay"] = options.pop("countdown", None)
        submitting = db.run(jobs.submit, self.name, args=args or (), kwargs=kwargs or {}, **options)
        job = await asyncio.wait_for(submitting, deadline)
        return self.AsyncResult(job.id)

    def retry(  # noqa: PLR0917 - as Celery has it
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's: ends this attempt and has the job tried again, within its max_attempts.

        Its time is kept in the job's row; its arguments stay those of the row.
        """
        if self._run is None:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        if max_retries is not None and self.request.retries >= max_retries:
            raise Permanent(f"given up after {max_retries} retries: {exc}") from exc
        again = Retry(None, exc, eta or countdown)
        if throw:
            raise again from exc
        return again

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], Any]:
        """The arguments as they are to be stored; raises Invalid naming the wrong one."""
        return bind(self.parameters, args, kwargs).stored()

    @cached_property
    def parameters(self) -> type[Parameters]:
        """The signature as a model: its JSON Schema is what callers see."""
        return model_of(self.name, self.run)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its parameters; those of many tasks take long to make."""
        return self.parameters.model_json_schema(by_alias=True)

    @cached_property
    def wrapped(self) -> tuple[str, type[BaseModel]] | None:
        """Its one parameter, where that is a model: a caller may send what is in it alone."""
        return only_model(self.parameters)

    def perform(self, *args: Any, **kwargs: Any) -> Any:
        """One attempt: claim the job, run its body, record the outcome under the fence."""
        if self.request.called_directly or self.request.is_eager:
            return super().perform(*args, **kwargs)
        return attempt.perform(self, super().perform, args, kwargs)

    @property
    def _run(self) -> Run | None:
        return getattr(self.request, "run", None)

    def _carried(self) -> dict[str, str]:
        # What follows in a chain is published when the context of its task is gone.
        running = getattr(self.app.current_task, "request", None)
        return (getattr(running, "baggage", None) or baggage.current()).known()

    def _submit(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Any) -> Job:
        with db.session() as session:
            return jobs.submit(session, self.name, args=args, kwargs=kwargs, **options)

    def end_failed(
        self, session: Session, job: Job, error: Exception, cancelled: bool = False
    ) -> float | None:
        """Ends this attempt by its error; the seconds until the next one if there is to be one."""
        if cancelled:
            attempts.cancel(session, job.id, job.attempt)
            return None
        cause = retrying.cause_of(error)
        text, way = tracebacks.named(cause), tracebacks.within(self.run, cause)
        if job.attempt >= job.max_attempts or not self._may_be_tried_again(error):
            attempts.fail(session, job.id, job.attempt, text, traceback=way)
        else:
            backoff = float(self.retry_backoff), float(self.retry_backoff_max)
            wait = retrying.pause_after(job.attempt, error, *backoff)
            attempts.postpone(session, job.id, job.attempt, text, wait, traceback=way)
            return wait
        return None

    def _may_be_tried_again(self, error: BaseException) -> bool:
        return retrying.may_be_tried_again(error, self.retry_for, self.never_retry_for)


def _refuse_to_block_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "delay() would block the event loop: use `await db.run(jobs.submit, …)`,"
        " or `await asyncio.to_thread(task.delay, …)` within an async task"
    )
