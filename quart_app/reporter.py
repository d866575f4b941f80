"""What running jobs say, announced by one thread and stored by another, so that no task waits.

The one that stores keeps the leases, too: when the process dies, they end with it.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from quart import Quart, current_app
from sqlalchemy.orm import Session

from quart_app import attempts, db
from quart_app.attempts import Fenced, Line
from quart_app.celeryext import loops
from quart_app.events import progress_frame
from quart_app.interrupt import Interrupt
from quart_app.models import Job
from quart_app.publisher import Publisher
from quart_app.seldom import Seldom

_PAUSE = 0.002  # between two announcements: what comes meanwhile goes together
_APART = 0.02  # those of one job: a body that counts in a loop is no flood
_WRITE_PAUSE = 0.02
_PROGRESS_EVERY = 1.0
_HEAR_EVERY = 5.0  # that it is to stop, which a long lease must not put off
_COURTESY = 5.0  # for a cancelled body to look and to stop by itself
_LONGEST_STAY = 20.0  # from when a body was to stop until its job is ended without it
_OVERTIME = 1.0  # in which a pool of processes ends by itself what takes longer than it may
_MOST_LINES = 10_000
_LONGEST_LINE = 8_192

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> "Reporter":
    reporter = Reporter(app)
    app.extensions["reporter"] = reporter
    return reporter


def get() -> "Reporter":
    """The reporter of the current application."""
    reporter: Reporter = current_app.extensions["reporter"]
    return reporter


class Run:
    """One attempt as its worker sees it; what it says is only put down here.

    `limit` is for how many seconds its body may run, if there is one.
    """

    def __init__(self, job: Job, reporter: "Reporter", limit: float | None = None) -> None:
        self.job_id, self.attempt, self.limit = job.id, job.attempt, limit
        self.cancelled = self.overran = False
        #: True when the body has seen that it is to stop.
        self.heeded = False
        self.lost = False
        self.interrupt = Interrupt(loops.wake)
        self.lock = threading.Lock()
        self.written_at = time.monotonic()
        self._ends_at = math.inf if limit is None else self.written_at + limit + _OVERTIME
        #: Since when it is to stop, and when it was last asked to.
        self._to_stop_since = self._asked_at = math.inf
        self._reporter = reporter
        self._lines: deque[Line] = deque()
        #: How many of them the last call of `store` wrote, while nobody knows whether they are in.
        self._unsure = 0
        self._count = 0
        self._progress: dict[str, Any] | None = None
        self._announced: dict[str, Any] | None = None
        self._announced_at = -math.inf
        self._stored: dict[str, Any] | None = None

    def progress(self, current: float, total: float | None, message: str) -> None:
        numbers = {"current": _number(current), "total": _number(total)}
        self._progress = {**numbers, "message": plain(message)}
        self._reporter.has_news.set()

    def log(self, message: str, level: str) -> None:
        self._count += 1
        if self._count > _MOST_LINES:
            return
        if self._count == _MOST_LINES:
            level, message = "warning", f"Only the first {_MOST_LINES} lines of this job are kept."
        self._lines.append(Line(datetime.now(UTC), plain(level), plain(message)))
        self._reporter.has_lines.set()

    def insist(self) -> None:
        """Ends a body that was asked to stop or ran too long; called again and again."""
        if time.monotonic() > self._ends_at and not (self.overran or self.cancelled):
            self.overran = True
            self._to_stop_since, self._asked_at = time.monotonic(), -math.inf
        if time.monotonic() > self._asked_at + _COURTESY:
            self._asked_at = time.monotonic()
            self.interrupt.fire()

    def give_up(self) -> None:
        """The job has ended or was given to another attempt: whatever this one does is in vain."""
        self.lost = True
        self._asked_at = -math.inf

    def unannounced(self) -> dict[str, Any] | None:
        """The newest progress, unless it has been announced or another just was."""
        newest, now = self._progress, time.monotonic()
        if newest is self._announced or now < self._announced_at + _APART:
            return None
        self._announced, self._announced_at = newest, now
        return newest

    @property
    def is_unannounced(self) -> bool:
        return self._progress is not self._announced

    @property
    def is_unsaid(self) -> bool:
        """Whether something has been said that is not stored."""
        return bool(self._lines) or self._progress is not self._stored

    def is_due(self, keep_every: float) -> bool:
        silent = time.monotonic() - self.written_at
        said = self._progress is not self._stored and silent >= _PROGRESS_EVERY
        return bool(self._lines) or said or silent >= keep_every or self.is_deaf

    @property
    def is_deaf(self) -> bool:
        """Whether its body goes on though it was to stop, and interrupted again and again."""
        return time.monotonic() > self._to_stop_since + _LONGEST_STAY

    def store(self, session: Session, lease: float) -> dict[str, Any] | None:
        """Writes what was said since and extends the lease, under the fence; `lock` is held."""
        if self._unsure and attempts.has_line(session, self.job_id, self._lines[0]):
            self._drop_stored()
        lines, newest = list(self._lines), self._progress
        self._unsure = len(lines)
        asked = attempts.keep(
            session, self.job_id, self.attempt, lease, progress=newest, lines=lines
        )
        if asked and not self.cancelled:
            self.cancelled = True
            self._to_stop_since = self._asked_at = time.monotonic()
        return newest

    def stored(self, newest: dict[str, Any] | None) -> None:
        """What `store` wrote has been committed."""
        self._drop_stored()
        self._stored, self.written_at = newest, time.monotonic()

    def _drop_stored(self) -> None:
        for _ in range(self._unsure):
            self._lines.popleft()
        self._unsure = 0


class Reporter:
    """The runs of one process and the threads that speak for them.

    Two, so that a slow database holds up no announcement, and a slow Redis no lease.
    """

    def __init__(self, app: Quart) -> None:
        self.database: db.Database = app.extensions["db"]
        self.publisher: Publisher = app.extensions["publisher"]
        self.lease: float = app.config["JOB_LEASE"]
        self._warnings = Seldom()
        self.forget()

    def forget(self) -> None:
        """In a forked child: the parent's runs and threads are not its own."""
        self._lock = threading.Lock()
        self.has_news, self.has_lines = threading.Event(), threading.Event()
        self._runs: dict[tuple[str, int], Run] = {}
        self._threads: dict[str, threading.Thread] = {}

    def start(self, job: Job, limit: float | None = None) -> Run:
        run = Run(job, self, limit)
        with self._lock:
            self._runs[(run.job_id, run.attempt)] = run
            self._see_to("announcer", self._announce)
            self._see_to("keeper", self._keep)
        return run

    def _see_to(self, name: str, work: Callable[[], None]) -> None:
        """Has the thread at work, also after an error that nobody thought of."""
        if name not in self._threads or not self._threads[name].is_alive():
            self._threads[name] = threading.Thread(target=work, name=name, daemon=True)
            self._threads[name].start()

    def has(self, job: Job) -> bool:
        """Whether this attempt at the job runs in this process."""
        with self._lock:
            return (job.id, job.attempt) in self._runs

    def end(self, run: Run) -> None:
        with self._lock:
            self._runs.pop((run.job_id, run.attempt), None)

    @property
    def _running(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    def _announce(self) -> None:
        patience = None
        while True:
            self.has_news.wait(patience)
            self.has_news.clear()
            runs = [run for run in self._running if not run.lost]
            if self.publisher.is_heard:
                self._announce_news(runs)
            patience = _APART if any(run.is_unannounced for run in runs) else None
            time.sleep(_PAUSE)

    def _announce_news(self, runs: list[Run]) -> None:
        news = [(run.job_id, newest) for run in runs if (newest := run.unannounced())]
        frames = [progress_frame(job_id, newest) for job_id, newest in news]
        if frames:
            self.publisher.announce(frames)

    def _keep(self) -> None:
        keep_every = min(self.lease / 3, _HEAR_EVERY)
        while True:
            self.has_lines.wait(min(self.lease / 10, 0.25))
            self.has_lines.clear()
            for run in self._running:
                if run.is_due(keep_every) and not run.lost:
                    self._write(run)
                run.insist()
            time.sleep(_WRITE_PAUSE)

    def _write(self, run: Run) -> None:
        # Who holds the lock writes the job's end, and what is unsaid with it: that may take long.
        if not run.lock.acquire(blocking=False):
            return
        is_deaf = run.is_deaf
        try:
            with self.database.session() as session:
                newest = run.store(session, self.lease)
                if is_deaf:
                    attempts.leave(session, run.job_id, run.attempt, cancelled=run.cancelled)
            run.stored(newest)
            if is_deaf:
                logger.warning("Job %s does not stop: its body is left to itself.", run.job_id)
                run.give_up()
        except Fenced:
            run.give_up()
        except Exception as error:  # this thread keeps every lease of the process: it goes on
            self._warnings.warn(logger, f"Job {run.job_id} could not be kept", error)
            time.sleep(min(1.0, self.lease / 10))
        finally:
            run.lock.release()


def _number(value: Any) -> float | None:
    """What JSON can say of it: an int or a float, or nothing for all else."""
    try:
        number = value if isinstance(value, int) else float(value)
        return number if math.isfinite(number) else None
    except (TypeError, ValueError, OverflowError):
        return None


def plain(text: str) -> str:
    """Bounded, and without what a database or a terminal would trip over."""
    clean = str(text).encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return clean[:_LONGEST_LINE]
