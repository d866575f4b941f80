"""What a worker's main process sees to: messages that do not come, children that do not stop."""

import heapq
import logging
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from celery import signals
from celery.worker import state
from sqlalchemy import select
from sqlalchemy.orm import Session

from quart_app import nodes, publisher
from quart_app.models import Job, JobState
from tasks.request import JobRequest

#: Seconds for which a worker may get none of the messages that wait for it, with room for them.
MOST_STARVED = 15.0
#: Seconds that a child may go on with a job that was cancelled or is no longer its own.
MOST_STUBBORN = 15.0
#: Timers that are not gone through for those that were cancelled.
FEW_TIMERS = 1_000

logger = logging.getLogger(__name__)


class Watch:
    """Looked at again and again by the pulse; `worker` is Celery's."""

    def __init__(self, worker: Any, queues: Collection[str]) -> None:
        self._worker, self._queues = worker, queues
        self._received = 0
        self._children: set[int] = set()
        self._starved = _Since()
        self._stubborn: dict[tuple[str, int], float] = {}
        signals.task_received.connect(self._count, weak=False)

    def glance(self) -> None:
        """Sees at once that a child has died under its job, as Celery does seconds later."""
        for request in _active():
            if request.worker_pid in self._children and _has_ended(request.worker_pid):
                request.write_down_death()
        self._children = {pid for pid in child_pids(self._worker) if not _has_ended(pid)}

    def starved(self) -> float:
        """For how many seconds messages have waited that this worker does not get."""
        starves = state.should_stop is None and self._has_room() and self._is_waited_for()
        return self._starved.so_far(starves, self._received)

    def end_stubborn(self, session: Session) -> None:
        """Kills the children whose job is to be stopped, and that nothing else could stop."""
        now = time.monotonic()
        found = {key: self._stubborn.get(key, now) for key in self._strays(session)}
        for (job_id, pid), since in found.items():
            if now - since > MOST_STUBBORN and pid in child_pids(self._worker):
                logger.warning("Job %s does not stop: its process is killed.", job_id)
                os.kill(pid, signal.SIGKILL)
        self._stubborn = found

    def _count(self, **_: Any) -> None:
        self._received += 1

    def _has_room(self) -> bool:
        return len(state.reserved_requests) < at_once(self._worker)

    def _is_waited_for(self) -> bool:
        try:
            waiting = publisher.get().waiting(sorted(self._queues))
        except Exception:
            return False  # it is away, and nothing comes from it
        return any(there.count for there in waiting.values())

    def _strays(self, session: Session) -> Iterator[tuple[str, int]]:
        active = {request.id: request.worker_pid for request in _active()}
        rows = _rows(session, active.keys())
        for job_id, pid in active.items():
            row = rows.get(job_id)
            if row and not (
                row.state is JobState.RUNNING
                and row.holder == nodes.holder(pid)
                and not row.cancel_requested
            ):
                yield job_id, pid


class Sweep:
    """Forgets the timers that were cancelled, at a tick of the worker's loop.

    kombu keeps each until its time comes: of every job, one for the hour of its time limit.
    """

    def __init__(self, hub: Any) -> None:
        # The list itself: who goes through the timers goes on with this one.
        self._timers: list[Any] = hub.timer._queue
        self._most = FEW_TIMERS
        hub.on_tick.add(self)

    def __call__(self) -> None:
        if len(self._timers) > self._most:
            self._timers[:] = [timer for timer in self._timers if not timer.entry.canceled]
            heapq.heapify(self._timers)
            self._most = max(FEW_TIMERS, 2 * len(self._timers))


class _Since:
    """Since when something has been so, with no sign of change."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._sign = 0

    def so_far(self, is_so: bool, sign: int) -> float:
        now = time.monotonic()
        if not is_so or self._since is None or sign != self._sign:
            self._since, self._sign = now if is_so else None, sign
        return now - self._since if self._since else 0.0


def at_once(worker: Any) -> int:
    """How many jobs it runs at once: a solo pool one, whatever the worker was told."""
    return int(worker.pool.limit)


def child_pids(worker: Any) -> list[int]:
    """The processes of the pool, where it has any."""
    pool = getattr(getattr(worker.pool, "_pool", None), "_pool", None) or []
    # A list, since the pool may change meanwhile; a process that is just being made has no pid.
    return [pid for child in list(pool) if (pid := getattr(child, "pid", None))]


def _has_ended(pid: int) -> bool:
    """Whether a child has; that it did is left for Celery to find out."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _active() -> list[JobRequest]:
    try:
        running = list(state.active_requests)
    except RuntimeError:  # it changed meanwhile: the next look will do
        return []
    return [request for request in running if isinstance(request, JobRequest)]


def _rows(session: Session, ids: Collection[str]) -> Mapping[str, Any]:
    columns = select(Job.id, Job.state, Job.holder, Job.cancel_requested)
    return {row.id: row for row in session.execute(columns.where(Job.id.in_(ids)))} if ids else {}
