"""A message as the main process of a worker sees it: it tells what a dead child no longer can."""

import threading
from functools import partial
from signal import SIGTERM
from typing import Any

import billiard.exceptions
from billiard.exceptions import WorkerLostError
from celery.concurrency.solo import TaskPool as SoloPool
from celery.worker.request import Request
from sqlalchemy.orm import Session

from quart_app import attempts, nodes, rescue
from quart_app.nodes import Pulse

#: What the pool says of a child that ended under a task: killed, crashed, or told to exit.
_DEATHS = (WorkerLostError, SystemExit, KeyboardInterrupt)
#: Seconds for which all messages wait until a time limit is written down.
_PATIENCE = 1.0


class TimeLimitExceeded(billiard.exceptions.TimeLimitExceeded):
    """Its argument is the limit, in seconds."""

    def __str__(self) -> str:
        return f"it ran longer than {self.args[0]:g} s"


class JobRequest(Request):
    """Sees to the job when its child has died or was killed by its time limit."""

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> None:
        error = exc_info.exception
        if isinstance(getattr(error, "exc", error), _DEATHS):
            self.write_down_death()
        super().on_failure(exc_info, *args, **options)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            # Before its child is told to end: that would take it for a stop, and give the job back.
            self._write(partial(self._timed_out, timeout=timeout)).wait(_PATIENCE)
        super().on_timeout(soft, timeout)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """As its worker is told to stop at once: a pool without processes can end none of them."""
        try:
            super().cancel(pool, signal, emit_retry)
        except NotImplementedError:
            if isinstance(pool, SoloPool):  # the body runs beneath this very call
                raise SystemExit(-SIGTERM) from None
            self._write(partial(_stopped, job_id=self.id, pid=self.worker_pid)).wait(_PATIENCE)

    def write_down_death(self) -> None:
        """Gives the job back, unless it has ended or is in other hands."""
        self._write(partial(_died, job_id=self.id, pid=self.worker_pid))

    def _write(self, errand: Any) -> threading.Event:
        # By the thread of the pulse: this one must go on handing out messages.
        pulse: Pulse = self.app.quart_app.extensions["pulse"]
        return pulse.ask(errand)

    def _timed_out(self, session: Session, timeout: float) -> None:
        if job := attempts.claimed(session, self.id, nodes.holder(self.worker_pid)):
            self.task.end_failed(session, job, TimeLimitExceeded(timeout))


def _stopped(session: Session, job_id: str, pid: int) -> None:
    if job := attempts.claimed(session, job_id, nodes.holder(pid)):
        rescue.stopped(session, job_id, job.attempt)


def _died(session: Session, job_id: str, pid: int) -> None:
    rescue.process_died(session, job_id, nodes.holder(pid))
