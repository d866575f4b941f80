"""The lines that a worker and beat log: each names the job and the request it belongs to."""

import logging
from typing import Any

from celery import signals
from quart import g, has_app_context

from quart_app import baggage


def prepare() -> None:
    """Has each record carry `about` for the format: "[job … request …] ", or nothing."""
    signals.after_setup_logger.connect(_set_up, weak=False)


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
