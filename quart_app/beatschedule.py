"""What CELERY_BEAT_SCHEDULE says, in Celery's words, as rules of ours."""

import json
import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from celery.schedules import BaseSchedule, crontab
from cronsim import CronSimError
from cronsim.cronsim import Field

from quart_app import duetimes

logger = logging.getLogger(__name__)


def read(entries: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The columns of a schedule for each entry; one that cannot be used is logged and left out."""
    found = {name: _columns(name, entry) for name, entry in entries.items()}
    return {name: columns for name, columns in found.items() if columns}


def rule(when: Any) -> tuple[str | None, float | None]:
    """The cron fields or the seconds of what Celery takes for a schedule."""
    if isinstance(when, crontab):
        return _cron(when), None
    if isinstance(when, BaseSchedule) and not hasattr(when, "run_every"):
        raise TypeError(f"a {type(when).__name__} schedule is neither a crontab nor an interval")
    when = getattr(when, "run_every", when)
    seconds = when.total_seconds() if isinstance(when, timedelta) else float(when)
    if not duetimes.SHORTEST <= seconds <= duetimes.LONGEST:
        raise ValueError(f"an interval of {seconds} seconds")
    return None, seconds


def _columns(name: str, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        cron, interval = rule(entry["schedule"])
        args, kwargs = list(entry.get("args") or ()), dict(entry.get("kwargs") or {})
        json.dumps([args, kwargs], allow_nan=False)
        queue = (entry.get("options") or {}).get("queue")
        return {
            "cron": cron, "interval": interval, "task": str(entry["task"]),
            "args": args, "kwargs": kwargs, "queue": queue and str(queue),
        }  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logger.error("CELERY_BEAT_SCHEDULE: %r is left out: %s", name, error)
        return None


def _cron(when: crontab) -> str:
    fields = {
        "minute": Field.MINUTE, "hour": Field.HOUR, "day_of_month": Field.DAY,
        "month_of_year": Field.MONTH, "day_of_week": Field.DOW,
    }  # fmt: skip
    text = " ".join(
        _spelling(field, getattr(when, f"_orig_{name}"), getattr(when, name))
        for name, field in fields.items()
    )
    if len(text) > duetimes.LONGEST_CRON:
        raise ValueError(f"a crontab of {len(text)} characters")
    return text


def _spelling(field: Field, spec: Any, values: Collection[int]) -> str:
    """As it was written if cron reads it alike, else the values it stands for."""
    try:
        read = field.parse(str(spec).upper())
    except CronSimError:
        read = set()
    alike = {0 if value == 7 else value for value in read} if field is Field.DOW else read
    return str(spec) if alike == set(values) else ",".join(map(str, sorted(values)))
