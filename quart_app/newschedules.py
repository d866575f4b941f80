"""What a caller asks of a schedule, checked against the task it names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from quart import current_app

from quart_app import duetimes, newjobs
from quart_app.errors import Invalid
from quart_app.newjobs import NewJob
from settings import is_zone

MISSED = ("skip", "once", "all")
_CRON = "expected five fields or a form such as @daily"


@dataclass(frozen=True, kw_only=True)
class NewSchedule:
    """`cron` or `interval` (seconds), but not both; without a `timezone` CELERY_TIMEZONE."""

    name: str
    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    cron: str | None = None
    interval: float | None = None
    timezone: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    missed: str | None = None


def columns(new: NewSchedule) -> dict[str, Any]:
    """What is stored of it. Raises NotFound for an unknown task, Invalid naming a wrong field."""
    if not (0 < len(new.name) <= 255 and new.name.isprintable() and new.name == new.name.strip()):
        raise Invalid("name", "expected 1 to 255 printable characters, no space around them")
    job = newjobs.row(NewJob(task=new.task, args=new.args, kwargs=new.kwargs, queue=new.queue))
    return {
        "name": new.name,
        "task": new.task,
        "args": job.args,
        "kwargs": job.kwargs,
        "queue": new.queue or None,
        **_rule(new),
        "timezone": _zone(new.timezone or current_app.config["CELERY_TIMEZONE"]),
        **_bounds(new),
        "missed": _policy(new.missed or "once"),
    }


def _rule(new: NewSchedule) -> dict[str, Any]:
    if new.cron is not None and new.interval is not None:
        raise Invalid("interval", "give cron or interval, not both")
    if new.cron is None and new.interval is None:
        raise Invalid("cron", "give cron or interval")
    if new.cron is not None and (fault := duetimes.fault_of(new.cron)):
        raise Invalid("cron", f"{_CRON}; {fault}")
    shortest, longest = duetimes.SHORTEST, duetimes.LONGEST
    if new.interval is not None and not shortest <= new.interval <= longest:
        raise Invalid("interval", f"expected {shortest} to {longest:.0f} seconds")
    return {"cron": new.cron and " ".join(new.cron.split()), "interval": new.interval}


def _zone(name: str) -> str:
    if not is_zone(name):
        raise Invalid("timezone", "expected an IANA time zone such as Asia/Shanghai")
    return name


def _bounds(new: NewSchedule) -> dict[str, Any]:
    bounds = {"starts_at": new.starts_at, "ends_at": new.ends_at}
    for name, at in bounds.items():
        if at is not None:
            newjobs.check_time(name, at)
    if new.starts_at and new.ends_at and new.ends_at < new.starts_at:
        raise Invalid("ends_at", "expected a time after starts_at")
    return bounds


def _policy(missed: str) -> str:
    if missed not in MISSED:
        raise Invalid("missed", f"expected {', '.join(MISSED[:-1])} or {MISSED[-1]}")
    return missed
