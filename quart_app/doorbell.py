"""The doorbell: Celery's own message for a job, without arguments, as bytes for Redis."""

import base64
import json
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from celery import Celery
from celery.signals import before_task_publish
from kombu import serialization
from kombu.compression import compress
from kombu.transport.redis import Channel
from kombu.utils.json import dumps

# Stand in a template where a job's own id and delivery tag go.
_ID = "00000000-0000-7000-8000-000000000000"
_TAG = "00000000-0000-4000-8000-000000000000"


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
        self._templates: dict[tuple[str, str, int], tuple[str, bytes]] = {}

    def cast(self, ring: Ring) -> tuple[str, bytes]:
        """The list and the bytes to push on it."""
        if before_task_publish.receivers:  # they may write into each message
            return self._make(ring, str(uuid.uuid4()))
        kind = (ring.task, ring.queue, ring.priority)
        if kind not in self._templates:
            self._templates[kind] = self._make(Ring(_ID, *kind), _TAG)
        key, template = self._templates[kind]
        tag = str(uuid.uuid4()).encode()
        return key, template.replace(_ID.encode(), ring.job_id.encode()).replace(_TAG.encode(), tag)

    def lists(self, queue: str) -> list[str]:
        """The lists of a queue, one for each step of priority, in the order they are emptied."""
        steps = self._options.get("priority_steps") or Channel.priority_steps
        return [self._key(queue, step) for step in steps]

    def _make(self, ring: Ring, tag: str) -> tuple[str, bytes]:
        queue, priority, payload = redis_payload(message(self.celery, ring), tag)
        return self._key(queue, priority), payload

    def _key(self, queue: str, priority: int) -> str:
        steps = self._options.get("priority_steps") or Channel.priority_steps
        separator = self._options.get("sep") or Channel.sep
        step = max((step for step in steps if step <= priority), default=steps[-1])
        name = f"{queue}{separator}{step}" if step else queue
        return f"{self._options.get('global_keyprefix', '')}{name}"

    @property
    def _options(self) -> dict[str, Any]:
        return self.celery.conf.broker_transport_options or {}


def message(celery: Celery, ring: Ring) -> dict[str, Any]:
    """What `apply_async(args=(), kwargs={}, task_id=…)` would publish, as kombu's arguments."""
    task = celery.tasks.get(ring.task)
    options = task._get_exec_options() if task else {}
    options |= {"queue": ring.queue, "priority": ring.priority}
    limits = {name: options.pop(name, None) for name in ("time_limit", "soft_time_limit")}
    ignore_result = options.pop("ignore_result", None) if task is None else task.ignore_result
    options = celery.amqp.router.route(options, ring.task, (), {}, task)
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


def redis_payload(published: dict[str, Any], tag: str) -> tuple[str, int, bytes]:
    """The queue, the priority and the bytes that kombu's Redis transport pushes for a message."""
    options = dict(published)
    headers = dict(options["headers"])
    content_type, encoding, body = serialization.dumps(options["body"], options["serializer"])
    if options.get("compression"):
        body, headers["compression"] = compress(body, options["compression"])
    priority = options.get("priority") or 0
    body = body if isinstance(body, bytes) else body.encode()
    properties = {
        "correlation_id": options["correlation_id"],
        "reply_to": options["reply_to"],
        "delivery_mode": options["delivery_mode"],
        "delivery_info": {"exchange": options["exchange"], "routing_key": options["routing_key"]},
        "priority": priority,
        "body_encoding": "base64",
        "delivery_tag": tag,
    }
    payload = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": properties,
    }
    return options["routing_key"], priority, dumps(payload).encode()


def job_of(payload: bytes) -> str | None:
    """The job a message on the list speaks of; None for what is no message of ours."""
    try:
        return str(json.loads(payload)["headers"]["id"])
    except (ValueError, KeyError, TypeError):
        return None


def redis_py_url(broker_url: str) -> str:
    """redis-py's spelling of Celery's broker URL: only unix sockets differ."""
    parts = urlsplit(broker_url)
    if parts.scheme != "redis+socket":
        return broker_url
    return f"unix://{unquote(parts.path)}?" + parts.query.replace("virtual_host=", "db=")
