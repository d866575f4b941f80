"""Whether a failed job is tried again, and when; Celery's words for it are understood."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.exceptions import Retry

from quart_app.errors import Permanent
from quart_app.newjobs import LONGEST_DELAY

_FOREVER = 2**31 - 1

Kinds = tuple[type[BaseException], ...]


def in_our_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Celery's options of a task in ours, lest it wraps the body to publish retries itself."""
    ours = dict(options)
    retry = ours.pop("retry_kwargs", {})
    if "autoretry_for" in ours:
        ours["retry_for"] = tuple(ours.pop("autoretry_for"))
        ours.setdefault("max_retries", retry.get("max_retries", 3))
    if "dont_autoretry_for" in ours:
        ours["never_retry_for"] = tuple(ours.pop("dont_autoretry_for"))
    if "max_retries" in ours:
        most = ours.pop("max_retries")
        ours.setdefault("max_attempts", _FOREVER if most is None else most + 1)
    if "countdown" in retry:
        ours.setdefault("retry_backoff", retry["countdown"])
    if "queue" in ours:  # Celery warns of it on a task, though it reads it there
        ours["default_queue"] = ours.pop("queue")
    return ours


def may_be_tried_again(error: BaseException, kinds: Kinds, never: Kinds) -> bool:
    if isinstance(error, Retry):
        return True
    return isinstance(error, kinds) and not isinstance(error, (Permanent, *never))


def cause_of(error: BaseException) -> BaseException:
    """What a task gave to `self.retry(exc=…)`, or the error itself."""
    if isinstance(error, Retry) and isinstance(error.exc, BaseException):
        return error.exc
    return error


def pause_after(attempt: int, error: BaseException, backoff: float, most: float) -> float:
    """Seconds before the next attempt: what `self.retry` was given, else growing ones.

    It never raises, since a job must end: what makes no sense counts as not given.
    """
    when = error.when if isinstance(error, Retry) else None
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        when = (aware - datetime.now(UTC)).total_seconds()
    if isinstance(when, timedelta):
        when = when.total_seconds()
    if isinstance(when, (int, float)):
        return min(max(0.0, when), float(LONGEST_DELAY))
    wait = min(float(backoff) * 2.0 ** min(attempt - 1, 30), most)
    return wait * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing
