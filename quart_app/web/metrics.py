"""What Prometheus reads: how things stand, and what this process has counted since it started."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from quart import Quart

from quart_app import figures, newjobs
from quart_app.db import Database
from quart_app.events import TERMINAL
from quart_app.figures import EndedJob, Harvest
from quart_app.publisher import Publisher
from quart_app.serving import while_serving
from quart_app.web import gauges
from quart_app.web.queue_labels import QueueLabels

_LOOK_EVERY = 0.25
_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400)
_LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_ENDED = (
    "; of the jobs that ended in any worker since this web process started. Every web process"
    " counts all of them: do not add them up."
)

# One, so that scrapes wait for one another; of its own, so that they hold up nothing else.
_thread = ThreadPoolExecutor(1, "metrics")


def init_app(app: Quart) -> None:
    metrics = Metrics(app.extensions["db"], app.extensions["publisher"])
    app.extensions["metrics"] = metrics

    @while_serving(app)
    async def serving() -> AsyncGenerator[None, None]:
        tasks = newjobs.tasks_of(app.extensions["celery"])
        metrics.begin(tasks, app.config["CELERY_TASK_QUEUES"])
        watching = asyncio.create_task(metrics.watch_the_loop())
        yield
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


class Metrics:
    """The label `pid` tells apart the processes that answer at one address."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database, self._publisher = database, publisher
        self._harvest = Harvest()
        self._labels = QueueLabels()
        self._standing: Sequence[Metric] = ()
        self._registry = registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        self._ended = Counter(
            "quartermaster_jobs_ended",
            f"By task and final state{_ENDED}",
            ["pid", "task", "state"],
            registry=registry,
        )
        self._waited = Histogram(
            "quartermaster_job_waiting_seconds",
            f"From when its last attempt might have started to its start{_ENDED}",
            ["pid", "queue"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._ran = Histogram(
            "quartermaster_job_running_seconds",
            f"From the start of its last attempt to the job's end{_ENDED}",
            ["pid", "task"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._loop_lag = Histogram(
            "quartermaster_event_loop_lag_seconds",
            f"By how much this process's event loop was late, looked at every {_LOOK_EVERY} s.",
            ["pid"], registry=registry, buckets=_LAGS,
        )  # fmt: skip

    def begin(self, tasks: Iterable[str], queues: Iterable[str]) -> None:
        """Has what is known be counted from zero: growth before the first sample goes unseen."""
        pid = os.getpid()
        for task in tasks:
            self._ran.labels(pid, task)
            for state in TERMINAL:
                self._ended.labels(pid, task, state.value)
        self._labels.know(queues)
        for queue in queues:
            self._waited.labels(pid, queue)

    async def scrape(self, accept: str, sockets: int) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that the scraper accepts."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_thread, self._scrape, accept, sockets)

    async def watch_the_loop(self) -> None:
        lag = self._loop_lag.labels(os.getpid())
        while True:
            started = time.monotonic()
            await asyncio.sleep(_LOOK_EVERY)
            lag.observe(max(0.0, time.monotonic() - started - _LOOK_EVERY))

    def collect(self) -> Iterable[Metric]:
        return self._standing

    def _scrape(self, accept: str, sockets: int) -> tuple[bytes, str]:
        with self._database.session(reading=True) as session:
            now, ended = figures.now(session), self._harvest.take(session)
        self._labels.know(now.listeners)
        for job in ended:
            self._count(job)
        self._standing = [
            *gauges.of_tables(now, self._publisher.most_doorbells, self._labels),
            *gauges.of_process(self._publisher.failures, sockets),
        ]
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _count(self, job: EndedJob) -> None:
        pid = os.getpid()
        self._ended.labels(pid, job.task, job.state.value).inc()
        # One that was cancelled while it waited may have had no attempt, or an earlier one.
        if job.started_at and job.started_at >= job.available_at:
            waited, ran = job.started_at - job.available_at, job.finished_at - job.started_at
            self._waited.labels(pid, self._labels.of(job.queue)).observe(waited.total_seconds())
            self._ran.labels(pid, job.task).observe(ran.total_seconds())
