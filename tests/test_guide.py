"""The study guide's commands and settings, to the letter, on real processes."""

import ast
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from redis import Redis

from tests import real
from tests.real import until

PASSWORD = "root123"
WORKER = real.python("celery", "-A", "tasks", "worker", "-P", "solo", "-E", "--loglevel=info")
BEAT = real.python("celery", "-A", "tasks", "beat", "--loglevel=info")
KEYS: dict[str, Any] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "worker_concurrency": 20,
    "task_time_limit": 3600,
    "timezone": "Asia/Shanghai",
    "enable_utc": True,
    "worker_log_color": True,
    "imports": ["tasks.scheduler", "tasks.background"],
}


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that wants the guide's password."""
    with real.redis_server(tmp_path_factory.mktemp("redis")) as url:
        with Redis.from_url(url) as client:
            client.config_set("requirepass", PASSWORD)
        yield url.replace("redis://", f"redis://:{PASSWORD}@")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example: Celery's own beat keeps a file beside it."""
    example = real.ROOT / "examples" / "package"
    return Path(shutil.copytree(example, tmp_path_factory.mktemp("e-shop") / "package"))


@pytest.fixture(scope="module")
def env(redis_url: str) -> dict[str, str]:
    return {"CELERY_BROKER_URL": redis_url, "PYTHONPATH": str(real.ROOT)}


@pytest.fixture(scope="module")
def worker(folder: Path, env: dict[str, str]) -> Iterator[Path]:
    log = folder / "worker.log"
    with real.process(WORKER, env, log, cwd=folder):
        until(lambda: " ready." in log.read_text())
        yield log


@pytest.fixture
def heard(redis_url: str, worker: Path) -> Iterator[list[str]]:
    """The kinds of Celery's events, as they come."""
    kinds: list[str] = []
    with (
        Celery("listener", broker=redis_url, set_as_current=False) as listener,
        listener.connection_for_read() as connection,
    ):
        handlers = {"*": lambda event: kinds.append(event["type"])}
        receiver = listener.events.Receiver(connection, handlers=handlers)
        thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
        thread.start()
        until(lambda: "worker-heartbeat" in kinds)
        yield kinds
        receiver.should_stop = True
        thread.join()


def test_the_view_gives_the_id_and_the_task_its_success(
    folder: Path, env: dict[str, str], worker: Path, heard: list[str]
) -> None:
    address, log = f"127.0.0.1:{real.free_port()}", folder / "web.log"
    argv = real.python("hypercorn", "app:app", "-w", "0", "--bind", address)
    with real.process(argv, env, log, cwd=folder):
        until(lambda: "Running on" in log.read_text())
        task_id = httpx.post(f"http://{address}/task").text
        with Redis.from_url(env["CELERY_BROKER_URL"]) as kept:
            result = until(lambda: kept.get(f"celery-task-meta-{task_id}"))
    assert json.loads(str(result, "utf-8"))["result"] == "success of app"
    until(lambda: "task-succeeded" in heard)
    assert PASSWORD not in worker.read_text() + log.read_text()


def test_beat_sends_what_a_crontab_and_a_timedelta_ask_for(
    folder: Path, env: dict[str, str], worker: Path
) -> None:
    log = folder / "beat.log"
    with real.process(BEAT, env, log, cwd=folder):
        until(lambda: "Sending due task every ten seconds" in log.read_text())
        until(lambda: "Sending due task each minute" in log.read_text(), 75)
        until(lambda: re.search(r"send_sms\[.*succeeded", worker.read_text()))
    assert PASSWORD not in log.read_text()


def test_each_key_of_the_guide_reaches_celery(folder: Path, env: dict[str, str]) -> None:
    look = f"""
import json
from tasks import celery
print(json.dumps({{name: celery.conf[name] for name in {list(KEYS)}}}))
print(celery.conf.broker_url == celery.conf.result_backend)
print(*(entry["schedule"] for entry in celery.conf.beat_schedule.values()), sep="; ")
"""
    argv = [sys.executable, "-c", look]
    said = subprocess.run(
        argv, cwd=folder, env=real.environment(env), check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert json.loads(said[0]) == KEYS
    assert said[1] == "True"
    assert said[2] == "<crontab: */1 * * * * (m/h/dM/MY/d)>; 0:00:10"


@pytest.mark.parametrize("first", ["app", "tasks", "tasks.background", "tasks.scheduler"])
def test_whichever_module_is_imported_first_no_import_goes_in_a_circle(
    folder: Path, env: dict[str, str], first: str
) -> None:
    argv = [sys.executable, "-c", f"import {first}"]
    subprocess.run(argv, cwd=folder, env=real.environment(env), check=True)


def test_every_test_that_the_pages_name_is_there() -> None:
    pages = "".join(page.read_text() for page in sorted((real.ROOT / "docs").glob("*.md")))
    known = {
        (file, node.name)
        for path in (real.ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if hasattr(node, "name")
        for file in ("", f"{path.name}::")
    }
    named = set(re.findall(r"`(test_\w+\.py::)?(test_\w+)`", pages))
    assert named
    assert named - known == set()
