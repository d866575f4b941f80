"""The doorbell, held against what Celery's own `apply_async` pushes on a real Redis."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.app.task import Task
from celery.signals import before_task_publish
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from redis import Redis

from quart_app.doorbell import Foundry, Ring, job_of, message, redis_py_url
from quart_app.publisher import Publisher
from settings import broker_url
from tests import real
from tests.conftest import Place, missing

NAME = "tests.sample_tasks.give_up"
LIMITED = "tests.sample_tasks.limited"
RABBIT = "amqp://guest:guest@127.0.0.1:5672//"
JOB = "01922f00-0000-7000-8000-0000000000aa"


@pytest.fixture(scope="module", params=["tcp", "socket"])
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("redis")
    start = real.redis_server if request.param == "tcp" else real.embedded_valkey
    with start(folder) as url:
        yield url


@pytest.fixture
def bare(redis_url: str, tmp_path: Path) -> Place:
    """A Redis of its own and a database that nobody opens."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    return Place("bare", tmp_path, f"sqlite:///{tmp_path}/none.sqlite3", redis_url)


def pushed_by_celery(place: Place, priority: int = 0, task: str = NAME, **config: Any) -> Any:
    """The list and the message that Celery itself pushes."""
    celery = place.app(**config).extensions["celery"]
    with celery.connection_for_write() as connection:
        options = {"connection": connection, "task_id": JOB, "priority": priority}
        Task.apply_async(celery.tasks[task], (), {}, **options)
    return the_only_message(place)


def pushed_by_us(
    place: Place, queue: str = "celery", priority: int = 0, task: str = NAME, **config: Any
) -> Any:
    publisher = Publisher(place.app(**config))
    assert publisher.push([Ring(JOB, task, queue, priority)])
    publisher.close()
    return the_only_message(place)


def the_only_message(place: Place) -> tuple[str, str]:
    """Its list and its text, the delivery tag and the sender's own names left out."""
    with Redis.from_url(place.redis_url, decode_responses=True) as client:
        (key,) = [key for key in client.keys("*") if client.type(key) == "list"]
        (text,) = client.lrange(key, 0, -1)
        client.flushall()
    told = json.loads(text)
    for own in (told["properties"]["delivery_tag"], told["properties"]["reply_to"]):
        assert uuid.UUID(own)
        text = text.replace(own, "…")
    return key, text.replace(told["headers"]["origin"], "…")


@pytest.mark.parametrize("priority", range(10))
def test_it_is_what_celery_pushes_whatever_the_priority(bare: Place, priority: int) -> None:
    assert pushed_by_us(bare, priority=priority) == pushed_by_celery(bare, priority)


@pytest.mark.parametrize(
    "transport",
    [
        {"global_keyprefix": "mine:"},
        {"priority_steps": [0, 5]},
        {"priority_steps": list(range(10)), "sep": ":"},
        {"priority_steps": [2, 7], "global_keyprefix": "{a}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("priority", [0, 4, 9])
def test_it_is_what_celery_pushes_whatever_the_transport_options(
    bare: Place, transport: Any, priority: int
) -> None:
    config = {"CELERY_BROKER_TRANSPORT_OPTIONS": transport}
    assert pushed_by_us(bare, priority=priority, **config) == pushed_by_celery(
        bare, priority, **config
    )


@pytest.mark.parametrize("compression", ["zlib", "bzip2"])
def test_it_is_what_celery_pushes_when_messages_are_compressed(
    bare: Place, compression: str
) -> None:
    config: Any = {"CELERY_TASK_COMPRESSION": compression}
    assert pushed_by_us(bare, **config) == pushed_by_celery(bare, **config)


def test_it_is_what_celery_pushes_when_routes_send_the_task_elsewhere(bare: Place) -> None:
    config: Any = {
        "CELERY_TASK_ROUTES": {"tests.sample_tasks.*": {"queue": "slow", "delivery_mode": 1}}
    }
    assert pushed_by_us(bare, "slow", **config) == pushed_by_celery(bare, **config)


def test_it_is_what_celery_pushes_when_limits_and_options_stand_on_the_task(bare: Place) -> None:
    theirs = pushed_by_celery(bare, task=LIMITED)
    assert '"timelimit": [9.0, 7]' in theirs[1]
    assert pushed_by_us(bare, task=LIMITED) == theirs


def test_it_is_what_celery_pushes_when_a_receiver_writes_into_the_message(bare: Place) -> None:
    def sign(headers: dict[str, Any], properties: dict[str, Any], **_: Any) -> None:
        headers["signed"] = f"by {headers['id']}"
        properties["app_id"] = "the tests"

    before_task_publish.connect(sign)
    try:
        ours, theirs = pushed_by_us(bare), pushed_by_celery(bare)
    finally:
        before_task_publish.disconnect(sign)
    assert ours == theirs
    assert f"by {JOB}" in ours[1]


def test_a_task_that_expires_makes_a_doorbell_that_does_not(bare: Place) -> None:
    ring = Ring(JOB, "tests.sample_tasks.hurried", "celery", 0)
    told = message(bare.app().extensions["celery"], ring)
    assert told["headers"]["expires"] is None
    assert "expires" not in told
    assert "expiration" not in told


def test_casting_a_doorbell_leaves_the_options_of_the_task_alone(bare: Place) -> None:
    celery = bare.app().extensions["celery"]
    before = dict(celery.tasks[LIMITED]._get_exec_options())
    Foundry(celery).cast(Ring(JOB, LIMITED, "elsewhere", 7))
    assert celery.tasks[LIMITED]._get_exec_options() == before


def test_each_doorbell_has_a_delivery_tag_of_its_own(bare: Place) -> None:
    foundry = Foundry(bare.app().extensions["celery"])
    texts = [foundry.cast(Ring(JOB, NAME, "celery", 0))[1] for _ in range(3)]
    assert len({json.loads(text)["properties"]["delivery_tag"] for text in texts}) == 3
    assert {job_of(text) for text in texts} == {JOB}


def test_queues_without_end_leave_no_templates_without_end(bare: Place) -> None:
    publisher = Publisher(bare.app())
    for number in range(1_100):
        assert publisher.broker.cast(Ring(JOB, NAME, f"queue-{number}", 0))
    assert publisher.foundry._template.cache_info().currsize == 1_000


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"headers": 1}', b"\xff"])
def test_what_is_no_message_of_ours_speaks_of_no_job(text: bytes) -> None:
    assert job_of(text) is None


@pytest.mark.parametrize("url", ["redis://h:1/2", "unix:///a/b%20c.sock?db=3"])
def test_celerys_spelling_of_a_redis_url_can_be_undone(url: str) -> None:
    assert redis_py_url(broker_url(url)).replace(" ", "%20") == url


def test_another_broker_gets_the_message_through_kombu(tmp_path: Path) -> None:
    queue = f"quartermaster.test.{uuid.uuid4().hex}"
    try:
        received = through_kombu(RABBIT, queue, tmp_path)
    except (OperationalError, OSError):
        missing("RabbitMQ on 127.0.0.1:5672 (guest/guest)")
    assert received.headers["id"] == received.properties["correlation_id"] == JOB
    assert received.payload[:2] == [[], {}]


def test_kombus_own_memory_broker_gets_it_too(tmp_path: Path) -> None:
    assert through_kombu("memory://", "a.queue", tmp_path).headers["task"] == NAME


def through_kombu(url: str, queue: str, var: Path) -> Any:
    """What a consumer of the queue receives."""
    with Connection(url, connect_timeout=2) as connection:
        connection.ensure_connection(max_retries=1)
        place = Place("bare", var, f"sqlite:///{var}/none.sqlite3", "redis://127.0.0.1:1/0")
        publisher = Publisher(place.app(CELERY_BROKER_URL=url))
        assert publisher.push([Ring(JOB, NAME, queue, 4)])
        publisher.close()
        received = real.until(lambda: connection.default_channel.basic_get(queue))
        connection.default_channel.queue_delete(queue)
        return connection.default_channel.message_to_python(received)
