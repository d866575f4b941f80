"""One attempt: claims its job, runs the task's body, and records the outcome under the fence."""

import asyncio
import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Retry
from quart import current_app, g
from sqlalchemy.orm import Session

from quart_app import attempts, baggage, db, jobs, nodes, reporter, rescue, traces
from quart_app.attempts import Fenced
from quart_app.errors import Problem
from quart_app.interrupt import Cancelled
from quart_app.models import Job
from quart_app.reporter import plain
from tasks import logs, outcomes, retrying, tracebacks
from tasks.parameters import bind
from tasks.refusals import refuse
from tasks.request import TimeLimitExceeded

if TYPE_CHECKING:
    from tasks.base import JobTask

#: Seconds that a doorbell waits for the database; the relay rings again.
_CLAIM_PATIENCE = 10.0
_NOT_OURS = (
    "no job has its id, and ALLOW_DIRECT_CALLS is off."
    " Does another installation use this Redis database?"
)
#: What an attempt that ends by one of these has come to, for its trace.
_OUTCOMES = {Retry: "retrying", Ignore: "cancelled", Fenced: "overtaken", SystemExit: "given back"}
#: What ends a body, and is no error of its own.
_NOT_THE_BODYS = (Cancelled, SystemExit, KeyboardInterrupt, GeneratorExit)
#: Of these libraries an exception may be the way to stop a body.
_SWITCHING = ("gevent", "greenlet", "eventlet")

logger = logging.getLogger(__name__)


def perform(
    task: "JobTask", body: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """What the message of `task.request` asks for, with `body`; the arguments are the message's.

    Raises Ignore where there is nothing to do, or no more, and Retry as Celery has it.
    """
    g.job = job = _Doorbell(task, args, kwargs).claim()
    task.request.retries = job.attempt - 1
    attempt = Attempt(task, body, job)
    try:
        with traces.attempt(job, _OUTCOMES) as traced:
            task.request.baggage = traces.onward(baggage.unpack(job.context))
            baggage.carry(task.request.baggage)
            result = attempt.perform()
            traced.outcome = "cancelled" if attempt.run.heeded else "succeeded"
            return result
    except Fenced:
        logger.warning("Job %s ended or went to another attempt: this one records nothing.", job.id)
        raise Ignore(f"job {job.id} ended or went to another attempt") from None
    finally:
        reporter.get().end(attempt.run)


class Attempt:
    """A claimed job in the hands of its task; each of its ends is recorded once."""

    def __init__(self, task: "JobTask", body: Callable[..., Any], job: Job) -> None:
        self._task, self._body, self._job = task, body, job
        limit = (task.request.timelimit or (None,))[0] or task.time_limit
        self.run = task.request.run = reporter.get().start(job, limit)

    def perform(self) -> Any:
        try:
            with logs.kept_for(self.run), self.run.interrupt:
                result = self._call()
            self._record(lambda session: self._finish(session, result))
        except Cancelled:
            self.run.interrupt.close()
            if self.run.overran:  # in a pool that has no processes to kill
                late = TimeLimitExceeded(self.run.limit)
                self._failed(late)
                raise late from None
            self._record(self._cancel)
            raise Ignore(f"job {self._job.id} was cancelled while it ran") from None
        except SystemExit as exit_:
            if _by_signal(exit_):
                self._record(lambda s: rescue.stopped(s, self._job.id, self._job.attempt))
                raise
            error = RuntimeError(f"the task would have ended its process: exit({exit_.code!r})")
            self._failed(error)
            raise error from None
        except MemoryError as error:  # reported as such it would end the main process
            self._failed(error)
            raise RuntimeError(f"MemoryError: {error}") from None
        except Fenced:
            raise
        except Exception as error:
            self._failed(error)
            raise
        return result

    def _call(self) -> Any:
        """Runs the body with the row's arguments; the result as it is to be stored."""
        args, kwargs = bind(self._task.parameters, self._job.args, self._job.kwargs).typed()
        try:
            result = self._body(*args, **kwargs)
        except asyncio.CancelledError as error:  # no Exception: it would end the whole worker
            raise RuntimeError("an async part of the task was cancelled") from error
        except (Exception, *_NOT_THE_BODYS):
            raise
        except BaseException as error:  # a panic of Rust, say, which no one else would write down
            if isinstance(error, BaseExceptionGroup) and error.subgroup(Cancelled):
                raise Cancelled from error
            if type(error).__module__.startswith(_SWITCHING):
                raise
            raise RuntimeError(tracebacks.named(error)) from error
        return outcomes.as_json(result)

    def _finish(self, session: Session, result: Any) -> None:
        if self.run.heeded:
            self._cancel(session)
            return
        # First, since it raises Fenced: an attempt that comes too late gets no further.
        attempts.succeed(session, self._job.id, self._job.attempt, result)
        for call in getattr(self._task.request, "at_success", ()):
            outcomes.include(session, call)

    def _cancel(self, session: Session) -> None:
        attempts.cancel(session, self._job.id, self._job.attempt)

    def _failed(self, error: Exception) -> None:
        """Records a failure: final, or to be tried again, which Celery is told by its Retry."""
        waits: list[float | None] = []
        self._record(
            lambda s: waits.append(self._task.end_failed(s, self._job, error, self.run.cancelled))
        )
        if waits[-1] is not None:
            raise Retry(None, retrying.cause_of(error), waits[-1]) from error

    def _record(self, end: Callable[[Session], None]) -> None:
        outcomes.record(self.run, current_app.config["JOB_LEASE"], end)


class _Doorbell:
    """A doorbell as it reached its task, or what another Celery client has sent."""

    def __init__(self, task: "JobTask", args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._task, self._args, self._kwargs = task, args, kwargs
        self._job_id = _job_id(task.request.id)

    def claim(self) -> Job:
        try:
            what = f"The claim of job {self._job_id}"
            job = outcomes.insist(self._take, what, self._patience)
        except db.AWAY:
            raise Ignore(f"no database for message {self._job_id}") from None  # it is rung again
        if job is None:
            raise Ignore(f"nothing to do for message {self._job_id}")
        return job

    @property
    def _patience(self) -> float:
        """What another Celery client has sent has no row yet: its message is all there is."""
        return math.inf if current_app.config["ALLOW_DIRECT_CALLS"] else _CLAIM_PATIENCE

    def _take(self, session: Session, again: bool) -> Job | None:
        holder = nodes.holder()
        claiming = partial(
            attempts.claim, session, self._job_id, self._task.name,
            self._task.request.hostname or "", current_app.config["JOB_LEASE"], holder=holder,
        )  # fmt: skip
        job = claiming()
        if job is None and again:  # the claim before it may have been the last word
            job = self._claimed(session, holder)
        if job is None and self._adopt(session):
            job = claiming()
        return job

    def _claimed(self, session: Session, holder: str) -> Job | None:
        """What this process has claimed and nothing in it runs, in no other thread either."""
        job = attempts.claimed(session, self._job_id, holder)
        return None if job and reporter.get().has(job) else job

    def _adopt(self, session: Session) -> bool:
        """Makes the row of what another Celery client has sent, where that is allowed."""
        if session.get(Job, self._job_id) is not None:
            return False
        if not current_app.config["ALLOW_DIRECT_CALLS"]:
            refuse(self._job_id, _NOT_OURS)
            return False
        request = self._task.request
        new = jobs.NewJob(
            task=self._task.name, args=self._args, kwargs=self._kwargs,
            queue=(request.delivery_info or {}).get("routing_key"),
            baggage=baggage.unpack(request.headers),
        )  # fmt: skip
        try:
            return jobs.adopt(session, self._job_id, new)
        except (Problem, ValueError, TypeError, RecursionError) as error:
            refuse(self._job_id, plain(str(error)))
            return False


def _by_signal(exit_: SystemExit) -> bool:
    """Whether it is the pool's process that exits, upon SIGTERM say, and not the body."""
    return isinstance(exit_.code, int) and exit_.code < 0


def _job_id(message_id: Any) -> str:
    """The message's id as a job has it; raises Ignore for what cannot be one."""
    try:
        return str(uuid.UUID(message_id))
    except (ValueError, AttributeError, TypeError):
        refuse(f"{message_id!r:.80}", "its id is not a UUID.")
        raise Ignore("its id is not a UUID") from None
