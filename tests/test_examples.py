"""The examples, really started."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from tests import real

EXAMPLES = real.ROOT / "examples"


def test_a_flask_app_goes_on_beside_quart(tmp_path: Path) -> None:
    address = f"127.0.0.1:{real.free_port()}"
    argv = real.python("hypercorn", "app:app", "-w", "0", "--bind", address)
    log = tmp_path / "log"
    with real.process(argv, {}, log, cwd=EXAMPLES / "mount_flask"):
        real.until(lambda: "Running on" in log.read_text())
        assert httpx.get(f"http://{address}/old/hello").text == "Hello from Flask"
        assert httpx.get(f"http://{address}/hello").text == "Hello from Quart"
        assert httpx.get(f"http://{address}/old/hell").status_code == 404


def test_the_guides_one_file_app_runs_a_task_and_keeps_its_result(tmp_path: Path) -> None:
    folder, address = EXAMPLES / "single_file", f"127.0.0.1:{real.free_port()}"
    with real.redis_server(tmp_path) as url:
        env = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        words = ["worker", "-P", "solo", "-E", "--loglevel=info"]
        worker = real.python("celery", "-A", "app.celery_app", *words)
        web = real.python("hypercorn", "app:app", "-w", "0", "--bind", address)
        with (
            real.process(worker, env, tmp_path / "worker.log", cwd=folder),
            real.process(web, env, tmp_path / "web.log", cwd=folder),
        ):
            real.until(lambda: "Running on" in (tmp_path / "web.log").read_text())
            task_id = httpx.post(f"http://{address}/task").text
            with Redis.from_url(url) as kept:
                result = real.until(lambda: kept.get(f"celery-task-meta-{task_id}"), 40)
    assert json.loads(str(result, "utf-8"))["result"] == "success"


def blocks(language: str) -> list[Any]:
    """What the pages of the docs show in it, each named by its page."""
    return [
        pytest.param(block, id=f"{page.stem}-{number}")
        for page in sorted((real.ROOT / "docs").glob("*.md"))
        for number, block in enumerate(
            re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
        )
    ]


@pytest.mark.parametrize("block", blocks("python"))
def test_what_the_pages_of_the_docs_show_really_runs(block: str) -> None:
    real.script(block)


@pytest.mark.parametrize("block", blocks("diff"))
def test_what_a_page_changes_runs_once_it_is_changed(block: str) -> None:
    real.script("\n".join(line[1:] for line in block.splitlines() if line[0] in " +"))
