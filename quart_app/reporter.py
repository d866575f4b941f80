"""What running jobs say, stored and announced by one thread, so that no task ever waits for it.

The same thread keeps the leases: when the process dies, both end with it.
"""

import logging
import math
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

from quart import Quart, current_app
from sqlalchemy.orm import Session

from quart_app import attempts, db
from quart_app.attempts import Fenced, Line
from quart_app.events import progress_frame
from quart_app.interrupt import Interrupt
from quart_app.models import Job
from quart_app.publisher import Publisher

_PAUSE = 0.02  # between two rounds: what comes meanwhile goes together
_PROGRESS_EVERY = 1.0
_ANNOUNCE_AGAIN = 5.0
_COURTESY = 5.0  # for a cancelled body to look and to stop by itself
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
    """One attempt as its worker sees it; what it says is only put down here."""

    def __init__(self, job: Job, reporter: "Reporter") -> None:
        self.job_id, self.attempt = job.id, job.attempt
        self.cancelled = False
        #: True when the body has seen that it is to stop.
        self.heeded = False
        self.lost = False
        self.interrupt = Interrupt()
        self.lock = threading.Lock()
        self.written_at = time.monotonic()
        self._asked_at = math.inf
        self._reporter = reporter
        self._lines: deque[Line] = deque()
        self._count = 0
        self._progress: dict[str, Any] | None = None
        self._announced: dict[str, Any] | None = None
        self._stored: dict[str, Any] | None = None

    def progress(self, current: float, total: float | None, message: str) -> None:
        numbers = {"current": _number(current), "total": _number(total)}
        self._progress = {**numbers, "message": plain(message)}
        self._reporter.wake()

    def log(self, message: str, level: str) -> None:
        self._count += 1
        if self._count > _MOST_LINES:
            return
        if self._count == _MOST_LINES:
            level, message = "warning", f"Only the first {_MOST_LINES} lines of this job are kept."
        self._lines.append(Line(datetime.now(UTC), plain(level), plain(message)))
        self._reporter.wake()

    def insist(self) -> None:
        """Ends a body that was asked to stop and has not; called again and again."""
        if time.monotonic() > self._asked_at + _COURTESY:
            self._asked_at = time.monotonic()
            self.interrupt.fire()

    def give_up(self) -> None:
        """The job was given to another attempt: whatever this one does is in vain."""
        self.lost = True
        self._asked_at = -math.inf

    def unannounced(self) -> dict[str, Any] | None:
        """The newest progress, unless it has been announced."""
        newest = self._progress
        if newest is self._announced:
            return None
        self._announced = newest
        return newest

    @property
    def is_unsaid(self) -> bool:
        """Whether something has been said that is not stored."""
        return bool(self._lines) or self._progress is not self._stored

    def is_due(self, keep_every: float) -> bool:
        silent = time.monotonic() - self.written_at
        said = self._progress is not self._stored and silent >= _PROGRESS_EVERY
        return bool(self._lines) or said or silent >= keep_every

    def store(self, session: Session, lease: float) -> tuple[int, dict[str, Any] | None]:
        """Writes what was said since and extends the lease, under the fence; `lock` is held."""
        lines, newest = list(self._lines), self._progress
        asked = attempts.keep(
            session, self.job_id, self.attempt, lease, progress=newest, lines=lines
        )
        if asked and not self.cancelled:
            self.cancelled, self._asked_at = True, time.monotonic()
        return len(lines), newest

    def stored(self, count: int, newest: dict[str, Any] | None) -> None:
        """What `store` wrote has been committed."""
        for _ in range(count):
            self._lines.popleft()
        self._stored, self.written_at = newest, time.monotonic()


class Reporter:
    """The runs of one process and the thread that speaks for them."""

    def __init__(self, app: Quart) -> None:
        self.database: db.Database = app.extensions["db"]
        self.publisher: Publisher = app.extensions["publisher"]
        self.lease: float = app.config["JOB_LEASE"]
        self._thread: threading.Thread | None = None
        self.forget()

    def start(self, job: Job) -> Run:
        run = Run(job, self)
        with self._lock:
            self._runs[(run.job_id, run.attempt)] = run
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._speak, name="reporter", daemon=True)
                self._thread.start()
        return run

    def end(self, run: Run) -> None:
        with self._lock:
            self._runs.pop((run.job_id, run.attempt), None)

    def wake(self) -> None:
        self._woken.set()

    def forget(self) -> None:
        """In a forked child: the parent's runs and thread are not its own."""
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._runs: dict[tuple[str, int], Run] = {}
        self._thread = None
        self._silent_until = 0.0

    def _speak(self) -> None:
        while True:
            self._woken.wait(min(self.lease / 10, 0.5))
            self._woken.clear()
            with self._lock:
                runs = list(self._runs.values())
            self._announce(runs)
            for run in runs:
                if run.is_due(self.lease / 3) and not run.lost:
                    self._write(run)
                run.insist()
            time.sleep(_PAUSE)

    def _announce(self, runs: list[Run]) -> None:
        if time.monotonic() < self._silent_until:
            return
        news = [(run.job_id, newest) for run in runs if (newest := run.unannounced())]
        frames = [progress_frame(job_id, newest) for job_id, newest in news]
        if frames and not self.publisher.announce(frames):
            # The rows carry on alone: a Redis that is away may cost this thread little time.
            self._silent_until = time.monotonic() + _ANNOUNCE_AGAIN

    def _write(self, run: Run) -> None:
        try:
            with run.lock:
                with self.database.session() as session:
                    written = run.store(session, self.lease)
                run.stored(*written)
        except Fenced:
            run.give_up()
        except Exception as error:  # this thread keeps every lease of the process: it goes on
            logger.warning("Job %s could not be kept: %s", run.job_id, type(error).__name__)
            time.sleep(min(1.0, self.lease / 10))


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
