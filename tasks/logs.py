"""The lines that a worker and beat log: each names its job and request; a body's are its job's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from celery import signals
from celery.worker.consumer import consumer
from quart import Quart, g, has_app_context

from quart_app import baggage
from quart_app.reporter import Run

#: Loggers of what a body is carried by, rather than of what it does.
_MACHINERY = (
    "celery.", "kombu", "amqp", "billiard", "redis", "sqlalchemy",
    "quart_app.reporter", "quart_app.publisher", "quart_app.db",
)  # fmt: skip

_talking: ContextVar[Run | None] = ContextVar("talking", default=None)


def prepare(app: Quart) -> None:
    """Has each record carry `about` for the format, "[job … request …] " or nothing, and kept."""
    # Eighteen lines, whenever the relay rings: `refusals.unknown` says it.
    consumer.logger.addFilter(lambda record: record.msg != consumer.UNKNOWN_TASK_ERROR)
    lines = JobLines(app.config["JOB_LOG_LEVEL"])
    signals.after_setup_logger.connect(_set_up, weak=False)
    signals.after_setup_logger.connect(lambda logger, **_: logger.addHandler(lines), weak=False)
    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(partial(_let_through, lines.level), weak=False)


@contextmanager
def kept_for(run: Run) -> Iterator[None]:
    """What is logged within, in this context, is a line of the job as well."""
    token = _talking.set(run)
    try:
        yield
    finally:
        _talking.reset(token)


class JobLines(logging.Handler):
    """Gives the job what its body logs; `self.log` does not come this way, and so never twice."""

    def emit(self, record: logging.LogRecord) -> None:
        run = _talking.get()
        if run is None or record.name.startswith(_MACHINERY):
            return
        try:
            run.log(self.format(record), record.levelname.lower())
        except Exception:  # whatever the arguments of the line may raise
            self.handleError(record)


def _let_through(level: int, logger: logging.Logger, loglevel: int, **_: Any) -> None:
    """What a job says does not depend on how much the worker's own output is to say."""
    for handler in logger.handlers:
        if not isinstance(handler, JobLines):
            handler.setLevel(max(handler.level, loglevel))
    logger.setLevel(min(level, loglevel))


def _set_up(**_: Any) -> None:
    # A handler's filter would miss the handlers that are not Celery's.
    make = logging.getLogRecordFactory()

    def record(*args: Any, **options: Any) -> logging.LogRecord:
        made = make(*args, **options)
        made.about = _about()
        return made

    logging.setLogRecordFactory(record)


def _about() -> str:
    job = g.get("job") if has_app_context() else None
    parts = {"job": job and job.id, "request": baggage.current().request_id}
    said = " ".join(f"{name} {value}" for name, value in parts.items() if value)
    return f"[{said}] " if said else ""
