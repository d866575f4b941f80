"""The doorbell: Celery's own message for a job, without arguments, as bytes for Redis.

What a task or a route says of `expires` is left out, since an accepted job does not expire, and an
`x-expires` of a queue is left to the worker's own renewals: a list that is gone is rung again.
"""

import base64
import json
import uuid
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from celery import Celery
from celery.signals import before_task_publish
from kombu import serialization
from kombu.compression import compress
from kombu.entity import maybe_delivery_mode
from kombu.transport.redis import Channel
from kombu.utils.json import dumps

# Stand in a template where a job's own id and delivery tag go.
_ID = "00000000-0000-7000-8000-000000000000"
_TAG = "00000000-0000-4000-8000-000000000000"
#: Templates that are kept: clients may name any number of queues.
_MOST_TEMPLATES = 1_000

#: What kombu is told about publishing, and does not write into a message.
_NOT_SENT = frozenset({
    "body", "serializer", "compression", "headers", "exchange", "routing_key", "priority",
    "delivery_mode", "expiration", "declare", "retry", "retry_policy", "timeout",
    "confirm_timeout", "mandatory", "immediate",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ring:
    """What a doorbell says: which task, which job, and where it belongs."""

    job_id: str
    task: str
    queue: str
    priority: int


class Foundry:
    """Casts doorbells for Redis, each from a template that Celery made once for its kind."""

    def __init__(self, celery: Celery) -> None:
        self.celery = celery
        self._template = lru_cache(_MOST_TEMPLATES)(self._make_template)

    def cast(self, ring: Ring) -> tuple[str, bytes]:
        """The list and the bytes to push on it."""
        if before_task_publish.receivers:  # they may write into each message
            return self._make(ring, str(uuid.uuid4()))
        key, template = self._template(ring.task, ring.queue, ring.priority)
        tag = str(uuid.uuid4()).encode()
        return key, template.replace(_ID.encode(), ring.job_id.encode()).replace(_TAG.encode(), tag)

    def lists(self, queue: str) -> list[str]:
        """The lists of a queue, one for each step of priority, in the order they are emptied."""
        return [self._key(queue, step) for step in self._steps]

    def list_of(self, ring: Ring) -> str:
        """The list where a doorbell waits."""
        return self._key(ring.queue, ring.priority)

    def _make_template(self, task: str, queue: str, priority: int) -> tuple[str, bytes]:
        return self._make(Ring(_ID, task, queue, priority), _TAG)

    def _make(self, ring: Ring, tag: str) -> tuple[str, bytes]:
        return self.list_of(ring), redis_payload(message(self.celery, ring), tag)

    def _key(self, queue: str, priority: int) -> str:
        separator = self._options.get("sep") or Channel.sep
        step = max((step for step in self._steps if step <= priority), default=self._steps[-1])
        name = f"{queue}{separator}{step}" if step else queue
        return f"{self._options.get('global_keyprefix', '')}{name}"

    @cached_property
    def _steps(self) -> list[int]:
        return self._options.get("priority_steps") or Channel.priority_steps

    @cached_property
    def _options(self) -> dict[str, Any]:
        return self.celery.conf.broker_transport_options or {}


def message(celery: Celery, ring: Ring) -> dict[str, Any]:
    """What `apply_async(args=(), kwargs={}, task_id=…)` would publish, as kombu's arguments."""
    task = celery.tasks.get(ring.task)
    options: dict[str, Any] = dict(task._get_exec_options()) if task else {}
    options |= {"queue": ring.queue, "priority": ring.priority}
    limits = {name: options.pop(name, None) for name in ("time_limit", "soft_time_limit")}
    ignore_result = options.pop("ignore_result", None) if task is None else task.ignore_result
    options = celery.amqp.router.route(options, ring.task, (), {}, task)
    options.pop("expires", None)
    body = celery.amqp.as_task_v2(
        ring.job_id, ring.task, (), {},
        ignore_result=ignore_result, reply_to=celery.thread_oid, **limits, **options,
    )  # fmt: skip
    recorder = _Recorder()
    celery.amqp.send_task_message(recorder, ring.task, body, **options)
    return recorder.published


class _Recorder:
    """Stands where Celery expects a producer, and keeps what it was to publish."""

    published: dict[str, Any]

    def publish(self, body: Any, **options: Any) -> None:
        self.published = {"body": body, **options}


def redis_payload(published: dict[str, Any], tag: str) -> bytes:
    """The bytes that kombu's Redis transport pushes for a message."""
    headers = dict(published["headers"])
    content_type, encoding, body = serialization.dumps(published["body"], published["serializer"])
    if published.get("compression"):
        body, headers["compression"] = compress(body, published["compression"])
    body = body if isinstance(body, bytes) else body.encode()
    payload = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": _properties(published, tag),
    }
    return dumps(payload).encode()


def _properties(published: dict[str, Any], tag: str) -> dict[str, Any]:
    where = {"exchange": published["exchange"], "routing_key": published["routing_key"]}
    return {
        **{name: value for name, value in published.items() if name not in _NOT_SENT},
        "delivery_mode": maybe_delivery_mode(published["delivery_mode"]),
        "delivery_info": where,
        "priority": published.get("priority") or 0,
        "body_encoding": "base64",
        "delivery_tag": tag,
    }


def job_of(payload: bytes) -> str | None:
    """The job a message on the list speaks of; None for what is no message of ours."""
    try:
        told = json.loads(payload)["headers"]["id"]
        return told if str(uuid.UUID(told)) == told else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def redis_py_url(broker_url: str) -> str:
    """redis-py's spelling of Celery's broker URL: only unix sockets differ."""
    parts = urlsplit(broker_url)
    if parts.scheme != "redis+socket":
        return broker_url
    return f"unix://{unquote(parts.path)}?" + parts.query.replace("virtual_host=", "db=")
