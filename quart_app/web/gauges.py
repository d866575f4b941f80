"""How things stand at one moment, as families of samples."""

import os
from collections import Counter, defaultdict
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
from quart_app.web.queue_labels import QueueLabels

_SAME = " Every web process tells the same: do not add them up."


def of_tables(now: Figures, most_doorbells: int, labels: QueueLabels) -> Iterator[Metric]:
    """What the tables say."""
    jobs = _gauge("jobs", "Jobs that have not ended, by task and state.", "task", "state")
    for (task, state), count in now.jobs.items():
        jobs.add_metric([task, state.value], count)
    yield jobs
    yield from _of_queues(now, labels)
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


def _of_queues(now: Figures, labels: QueueLabels) -> Iterator[Metric]:
    jobs, workers = Counter[tuple[str, JobState]](), Counter[str]()
    seconds: dict[str, float] = defaultdict(float)
    for queue in sorted(now.lines.keys() | now.listeners.keys()):
        label, lines = labels.of(queue), now.lines.get(queue, {})
        jobs.update({(label, state): line.count for state, line in lines.items()})
        waiting = lines.get(JobState.QUEUED, Line())
        seconds[label] = max(seconds[label], now.seconds_since(waiting.since))
        workers[label] += now.listeners.get(queue, 0)
    held = _gauge("queue_jobs", "Jobs that have not ended, by queue and state.", "queue", "state")
    oldest = _gauge(
        "queue_oldest_seconds", "For how long the oldest queued job could have run.", "queue"
    )
    online = _gauge("queue_workers", "Workers online that listen to the queue.", "queue")
    for (label, state), count in jobs.items():
        held.add_metric([label, state.value], count)
    for label, age in seconds.items():
        oldest.add_metric([label], age)
        online.add_metric([label], workers[label])
    yield from (held, oldest, online)


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
