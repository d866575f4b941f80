"""`task`: makes a function a task whose every run is a job in the ledger."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from celery import shared_task
from celery.exceptions import Ignore, Retry
from pydantic import BaseModel
from quart import current_app, g
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from quart_app import attempts, baggage, db, jobs, nodes, reporter, rescue, traces
from quart_app.attempts import Fenced
from quart_app.celeryext import AppContextTask, in_app_context
from quart_app.errors import Permanent, Problem
from quart_app.interrupt import Cancelled
from quart_app.models import Job
from quart_app.reporter import Run, plain
from tasks import logs, outcomes, retrying
from tasks.parameters import bind, model_of, only_model

_LEDGER_OPTIONS = {"countdown", "eta", "queue", "priority"}
#: Seconds that a message waits for the database; the relay rings again.
_CLAIM_PATIENCE = 10.0
#: What an attempt that ends by one of these has come to, for its trace.
_OUTCOMES = {Retry: "retrying", Ignore: "cancelled", Fenced: "overtaken", SystemExit: "given back"}

logger = logging.getLogger(__name__)


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
    return shared_task(base=JobTask, **retrying.in_our_words(options))(function)


class JobTask(AppContextTask):
    """A task that takes its arguments from its job's row, and records there how it ended."""

    abstract = True
    Request = "tasks.request:JobRequest"
    default_queue: str | None = None
    max_attempts = 1
    on_lost = "retry"
    retry_backoff: float = 2.0
    retry_backoff_max: float = 600.0
    retry_for: retrying.Kinds = (Exception,)
    never_retry_for: retrying.Kinds = ()

    @property
    def queue(self) -> str | None:
        """Where its jobs go when the caller names no queue."""
        return self.default_queue

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
            self.request.at_success = [*self._at_success, call]
            return
        with db.session() as session:
            call(session)

    @property
    def cancelled(self) -> bool:
        """True when the job was cancelled or given to another worker: stop as soon as you can."""
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
        app = self.app.quart_app
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
    def parameters(self) -> type[BaseModel]:
        """The signature as a model: its JSON Schema is what callers see."""
        return model_of(self.name, self.run)

    @cached_property
    def wrapped(self) -> tuple[str, type[BaseModel]] | None:
        """Its one parameter, where that is a model: a caller may send what is in it alone."""
        return only_model(self.parameters)

    def perform(self, *args: Any, **kwargs: Any) -> Any:
        """One attempt: claim the job, run its body, record the outcome under the fence."""
        if self.request.called_directly or self.request.is_eager:
            return super().perform(*args, **kwargs)
        g.job = job = self._claim(args, kwargs)
        self.request.retries = job.attempt - 1
        self.request.run = run = reporter.get().start(job)
        try:
            with traces.attempt(job, _OUTCOMES) as attempt:
                self.request.baggage = traces.onward(baggage.unpack(job.context))
                baggage.carry(self.request.baggage)
                result = self._attempt(job, run)
                attempt.outcome = "cancelled" if run.heeded else "succeeded"
                return result
        except Fenced:
            logger.warning("Job %s went to another attempt: this one records nothing.", job.id)
            raise Ignore(f"job {job.id} went to another attempt") from None
        finally:
            reporter.get().end(run)

    @property
    def _run(self) -> Run | None:
        return getattr(self.request, "run", None)

    @property
    def _at_success(self) -> Sequence[Callable[[Session], object]]:
        return getattr(self.request, "at_success", ())

    def _carried(self) -> dict[str, str]:
        # What follows in a chain is published when the context of its task is gone.
        running = getattr(self.app.current_task, "request", None)
        return (getattr(running, "baggage", None) or baggage.current()).known()

    def _submit(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Any) -> Job:
        with db.session() as session:
            return jobs.submit(session, self.name, args=args, kwargs=kwargs, **options)

    def _claim(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
        job_id = _job_id(self.request.id)
        try:
            claiming = partial(self._take, job_id, args, kwargs)
            job = outcomes.insist(claiming, f"The claim of job {job_id}", _CLAIM_PATIENCE)
        except (OperationalError, InterfaceError):
            raise Ignore(f"no database for message {job_id}") from None  # it is rung again
        if job is None:
            raise Ignore(f"nothing to do for message {job_id}")
        return job

    def _take(
        self,
        job_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        session: Session,
        again: bool,
    ) -> Job | None:
        claiming = partial(
            attempts.claim, session, job_id, self.name, self.request.hostname or "",
            current_app.config["JOB_LEASE"], holder=nodes.holder(),
        )  # fmt: skip
        job = attempts.claimed(session, job_id, nodes.holder()) if again else None
        job = job or claiming()
        if job is None and self._adopt(session, job_id, args, kwargs):
            job = claiming()
        return job

    def _adopt(
        self, session: Session, job_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> bool:
        """Makes the row of a message sent by another Celery client, where that is allowed."""
        if session.get(Job, job_id) is not None:
            return False
        if not current_app.config["ALLOW_DIRECT_CALLS"]:
            logger.warning("Refused message %s: ALLOW_DIRECT_CALLS is off.", job_id)
            return False
        sent = self.request.delivery_info or {}
        new = jobs.NewJob(
            task=self.name, args=args, kwargs=kwargs, queue=sent.get("routing_key"),
            baggage=baggage.unpack(self.request.headers),
        )  # fmt: skip
        try:
            return jobs.adopt(session, job_id, new)
        except (Problem, ValueError, TypeError, RecursionError) as error:
            logger.warning("Refused message %s: %s", job_id, plain(str(error)))
            return False

    def _attempt(self, job: Job, run: Run) -> Any:
        try:
            with logs.kept_for(run), run.interrupt:
                result = self._call(job)
            self._record(run, lambda s: self._finish(s, job, run, result))
        except Cancelled:
            self._record(run, lambda s: attempts.cancel(s, job.id, job.attempt))
            raise Ignore(f"job {job.id} was cancelled while it ran") from None
        except SystemExit as exit_:
            if _by_signal(exit_):
                self._record(run, lambda s: rescue.stopped(s, job.id, job.attempt))
                raise
            error = RuntimeError(f"the task would have ended its process: exit({exit_.code!r})")
            self._failed(job, run, error)
            raise error from None
        except MemoryError as error:  # reported as such it would end the main process
            self._failed(job, run, error)
            raise RuntimeError(f"MemoryError: {error}") from None
        except Fenced:
            raise
        except Exception as error:
            self._failed(job, run, error)
            raise
        return result

    def _finish(self, session: Session, job: Job, run: Run, result: Any) -> None:
        if run.heeded:
            attempts.cancel(session, job.id, job.attempt)
            return
        # First, since it raises Fenced: an attempt that comes too late gets no further.
        attempts.succeed(session, job.id, job.attempt, result)
        for call in self._at_success:
            outcomes.include(session, call)

    def _call(self, job: Job) -> Any:
        """Runs the body with the row's arguments; the result as it is to be stored."""
        args, kwargs = bind(self.parameters, job.args, job.kwargs).typed()
        try:
            result = super().perform(*args, **kwargs)
        except asyncio.CancelledError as error:  # no Exception: it would end the whole worker
            raise RuntimeError("an async part of the task was cancelled") from error
        return outcomes.as_json(result)

    def _record(self, run: Run, end: Callable[[Session], None]) -> None:
        outcomes.record(run, current_app.config["JOB_LEASE"], end)

    def _failed(self, job: Job, run: Run, error: Exception) -> None:
        """Records a failure: final, or to be tried again, which Celery is told by its Retry."""
        waits: list[float | None] = []
        self._record(run, lambda s: waits.append(self.end_failed(s, job, error, run.cancelled)))
        if waits[-1] is not None:
            raise Retry(None, retrying.cause_of(error), waits[-1]) from error

    def end_failed(
        self, session: Session, job: Job, error: Exception, cancelled: bool = False
    ) -> float | None:
        """Ends this attempt by its error; the seconds until the next one if there is to be one."""
        cause = retrying.cause_of(error)
        text = plain(f"{type(cause).__name__}: {cause}")
        if cancelled:
            attempts.cancel(session, job.id, job.attempt)
        elif job.attempt >= job.max_attempts or not self._may_be_tried_again(error):
            attempts.fail(session, job.id, job.attempt, text)
        else:
            backoff = float(self.retry_backoff), float(self.retry_backoff_max)
            wait = retrying.pause_after(job.attempt, error, *backoff)
            attempts.postpone(session, job.id, job.attempt, text, wait)
            return wait
        return None

    def _may_be_tried_again(self, error: BaseException) -> bool:
        return retrying.may_be_tried_again(error, self.retry_for, self.never_retry_for)


def _by_signal(exit_: SystemExit) -> bool:
    """Whether it is the pool's process that exits, upon SIGTERM say, and not the body."""
    return isinstance(exit_.code, int) and exit_.code < 0


def _refuse_to_block_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "delay() would block the event loop: use `await db.run(jobs.submit, …)`,"
        " or `await asyncio.to_thread(task.delay, …)` within an async task"
    )


def _job_id(message_id: Any) -> str:
    """The message's id as a job has it; raises Ignore for what cannot be one."""
    try:
        return str(uuid.UUID(message_id))
    except (ValueError, AttributeError, TypeError):
        logger.warning("Refused message %.80r: its id is not a UUID.", message_id)
        raise Ignore("its id is not a UUID") from None
