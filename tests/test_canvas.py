"""What Celery promises of a task holds in the bridge: real workers of a plain application."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from redis import Redis

from tests import plain_app, real
from tests.conftest import needs
from tests.plain_app import add, add_later, total, total_later

POOLS = ["prefork", "threads", "solo", "gevent"]


@dataclass(frozen=True)
class Worker:
    pool: str
    log: Path
    #: What a handler at the root of the logging got.
    heard: Path


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real.redis_server(tmp_path_factory.mktemp("redis")) as url:
        plain_app.celery.conf.update(broker_url=url, result_backend=url)
        yield url
        plain_app.celery.backend.result_consumer.stop()
        plain_app.celery.close()


@pytest.fixture(scope="module", params=POOLS)
def worker(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp(request.param)
    found = Worker(request.param, folder / "log", folder / "heard")
    with started(found, {"PLAIN_REDIS": redis_url, "PLAIN_HEARD": str(found.heard)}):
        yield found


@contextmanager
def started(worker: Worker, env: dict[str, str]) -> Iterator[None]:
    if worker.pool == "gevent":
        needs("gevent")
    words = ["worker", "--loglevel=info", "-P", worker.pool, "-c", "4"]
    argv = real.python("celery", "-A", "tests.plain_app.celery", *words)
    with real.process(argv, env, worker.log) as process:
        real.until(lambda: " ready." in worker.log.read_text())
        yield
        process.terminate()
        assert process.wait(20) == 0


def outcome(canvas: Any) -> Any:
    return canvas.apply_async().get(timeout=20)


@pytest.mark.usefixtures("worker")
def test_a_chain_gives_each_result_to_the_next() -> None:
    assert outcome(chain(add.s(1, 2), add_later.s(3), add.s(4))) == 10


@pytest.mark.usefixtures("worker")
def test_a_group_gives_all_results_in_order() -> None:
    parts = [part.s(number, number) for number in range(5) for part in (add, add_later)]
    assert outcome(group(parts)) == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("end", [total, total_later], ids=["def", "async"])
def test_a_chord_gives_all_results_to_its_end(end: Any) -> None:
    parts = [part.s(number, 1) for number in range(3) for part in (add, add_later)]
    assert outcome(chord(parts, end.s())) == 12


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", ["look", "look_later"])
def test_each_of_many_tasks_at_once_has_current_app_and_a_new_g(name: str) -> None:
    looks = group(getattr(plain_app, name).s(number) for number in range(20))
    assert outcome(looks) == [["plain", [], number] for number in range(20)]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", ["who", "who_later"])
def test_a_bound_task_knows_its_request(name: str) -> None:
    result = getattr(plain_app, name).delay()
    assert result.get(timeout=20) == [result.id, f"tests.plain_app.{name}"]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", ["stumble", "stumble_later"])
def test_autoretry_for_tries_again_after_retry_backoff(name: str) -> None:
    assert outcome(getattr(plain_app, name)) == 1


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", ["forget", "forget_later"])
def test_ignore_result_keeps_none(name: str, redis_url: str, worker: Worker) -> None:
    result = getattr(plain_app, name).delay()
    real.until(lambda: f"{result.id}] succeeded" in worker.log.read_text())
    with Redis.from_url(redis_url) as redis:
        assert redis.get(f"celery-task-meta-{result.id}") is None


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", ["hold", "hold_later"])
def test_acks_late_acknowledges_at_the_end(name: str, redis_url: str, tmp_path: Path) -> None:
    result = getattr(plain_app, name).delay(str(tmp_path))
    real.until((tmp_path / "started").exists)
    with Redis.from_url(redis_url) as redis:
        assert redis.hlen("unacked") == 1
        (tmp_path / "end").touch()
        result.get(timeout=20)
        real.until(lambda: redis.hlen("unacked") == 0)


@pytest.mark.parametrize("worker", ["prefork"], indirect=True)
@pytest.mark.parametrize("name", ["too_long", "too_long_later"])
@pytest.mark.usefixtures("worker")
def test_a_body_may_clean_up_at_its_soft_time_limit(name: str) -> None:
    assert outcome(getattr(plain_app, name)) == "cleaned up"


@pytest.mark.parametrize("worker", ["prefork"], indirect=True)
@pytest.mark.usefixtures("worker")
def test_an_async_body_that_does_not_fails_with_it() -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        outcome(plain_app.gives_in_later)


@pytest.mark.parametrize("worker", ["prefork", "gevent"], indirect=True)
@pytest.mark.parametrize("name", ["far_too_long", "far_too_long_later"])
@pytest.mark.usefixtures("worker")
def test_a_time_limit_ends_a_task(name: str) -> None:
    with pytest.raises(TimeLimitExceeded):
        outcome(getattr(plain_app, name))


def test_a_line_of_a_task_logger_is_in_the_workers_log_once_and_reaches_the_root(
    worker: Worker,
) -> None:
    result = plain_app.say.delay(f"heard in {worker.pool}")
    result.get(timeout=20)
    lines = real.until(lambda: lines_with(f"heard in {worker.pool}", worker.log))
    assert [f"tests.plain_app.say[{result.id}]" in line for line in lines] == [True]
    assert len(real.until(lambda: lines_with(f"heard in {worker.pool}", worker.heard))) == 1


def lines_with(text: str, file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if text in line]


@pytest.mark.parametrize("worker", ["prefork", "threads", "solo"], indirect=True)
@pytest.mark.usefixtures("worker")
def test_a_sync_task_runs_a_loop_of_its_own() -> None:
    assert outcome(group(plain_app.own_loop.s() for _ in range(8))) == ["plain"] * 8


@pytest.mark.usefixtures("worker")
def test_an_async_task_publishes_others() -> None:
    ids = outcome(group(plain_app.pass_on.s(number) for number in range(20)))
    results = [plain_app.celery.AsyncResult(id_).get(timeout=20) for id_ in ids]
    assert results == list(range(1, 21))


@pytest.mark.parametrize("pool", POOLS)
def test_every_loop_is_closed_when_the_worker_ends(
    pool: str, redis_url: str, tmp_path: Path
) -> None:
    noted = tmp_path / "loops"
    worker = Worker(pool, tmp_path / "log", tmp_path / "heard")
    with started(worker, {"PLAIN_REDIS": redis_url, "PLAIN_LOOPS": str(noted)}):
        outcome(group(add_later.s(number, 1) for number in range(20)))
    counted = Counter(line.split()[0] for line in noted.read_text().splitlines())
    assert counted["made"] == counted["closed"] > 0
    assert "ResourceWarning" not in worker.log.read_text()
