"""The examples, really started."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
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
        worker = real.python("celery", "-A", "app.celery_app", "worker", "--loglevel=info")
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


def test_what_the_pages_of_the_docs_show_really_runs(tmp_path: Path) -> None:
    text = (real.ROOT / "docs" / "contexts.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        subprocess.run([sys.executable, "-c", block], cwd=real.ROOT, check=True, timeout=60)
