"""How things stand at one moment, as families of samples."""

import os
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from quart_app import __version__
from quart_app.figures import Figures
from quart_app.models import JobState
from quart_app.queues import Line

_SAME = " Every web process tells the same: do not add them up."


def of_tables(now: Figures, most_doorbells: int) -> Iterator[Metric]:
    """What the tables say."""
    jobs = _gauge("jobs", "Jobs that have not ended, by task and state.", "task", "state")
    for (task, state), count in now.jobs.items():
        jobs.add_metric([task, state.value], count)
    yield jobs
    yield from _of_queues(now)
    lag = "Seconds by which the relay is late with what is due and the broker has room for."
    yield _gauge("relay_lag_seconds", lag, value=now.relay_lag(most_doorbells))
    online = _gauge("nodes_online", "Workers and beats that were heard of lately.", "kind")
    for kind, count in now.nodes.items():
        online.add_metric([kind], count)
    yield online
    starved = "Workers online that get no messages although some wait for them."
    yield _gauge("workers_starved", starved, value=now.workers_starved)
    refused = CounterMetricFamily(
        "quartermaster_messages_refused",
        "Messages that a worker refused: sent past the ledger, or without sense." + _SAME,
        labels=["worker"],
    )
    for worker, count in now.messages_refused.items():
        refused.add_metric([worker], count)
    yield refused
    late = "Schedules whose time has passed and that beat has not taken up."
    yield _gauge("schedules_late", late, value=now.schedules_late)


def _of_queues(now: Figures) -> Iterator[Metric]:
    held = _gauge("queue_jobs", "Jobs that have not ended, by queue and state.", "queue", "state")
    oldest = _gauge(
        "queue_oldest_seconds", "For how long the oldest queued job could have run.", "queue"
    )
    workers = _gauge("queue_workers", "Workers online that listen to the queue.", "queue")
    for queue in sorted(now.lines.keys() | now.listeners.keys()):
        lines = now.lines.get(queue, {})
        for state, line in lines.items():
            held.add_metric([queue, state.value], line.count)
        waiting = lines.get(JobState.QUEUED, Line())
        oldest.add_metric([queue], now.seconds_since(waiting.since))
        workers.add_metric([queue], now.listeners.get(queue, 0))
    yield from (held, oldest, workers)


def of_process(failures: Mapping[str, int], sockets: int) -> Iterator[Metric]:
    """What this web process says of itself."""
    pid = str(os.getpid())
    yield InfoMetricFamily(
        "quartermaster", "The version of this web process.", {"version": __version__, "pid": pid}
    )
    refused = CounterMetricFamily(
        "quartermaster_publish_failures",
        "Messages that the broker, and frames that Redis, did not take from this web process."
        " The relay tries the messages again.",
        labels=["pid", "what"],
    )
    for what, count in failures.items():
        refused.add_metric([pid, what], count)
    yield refused
    sockets_open = GaugeMetricFamily(
        "quartermaster_sockets_open",
        "WebSockets and event streams that follow a job in this web process.",
        labels=["pid"],
    )
    sockets_open.add_metric([pid], sockets)
    yield sockets_open


def _gauge(name: str, doc: str, *labels: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        f"quartermaster_{name}", doc + _SAME, value=value, labels=labels or None
    )
