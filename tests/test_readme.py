"""What the README has one do to write a task, done in a copy of the project."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import real
from tests.test_up import House, end

README = (real.ROOT / "README.md").read_text()
SECTION = README.partition("\n## Write a task\n")[2].partition("\n## ")[0]
NOT_COPIED = shutil.ignore_patterns(".*", "var", "__pycache__")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    one = House(tmp_path, {}, "--concurrency=1")
    del one.env["CELERY_IMPORTS"]
    yield one
    end(one)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project."""
    return Path(shutil.copytree(real.ROOT, tmp_path / "copy", ignore=NOT_COPIED))


def typed(house: House, folder: Path, command: str) -> str:
    """What is said in another terminal, where no variable is set but the token."""
    here = f"{sys.executable} -m quart --app asgi"
    command = command.replace("python3 run.py", here).replace("127.0.0.1:8000", house.address)
    env = {"VAR_DIR": str(house.var), "TOKEN": house.token if house.log.exists() else ""}
    return subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=real.environment(env), check=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    ).stdout  # fmt: skip


def test_a_task_is_written_named_and_run_as_the_readme_says(house: House, folder: Path) -> None:
    (folder / "my_tasks.py").write_text(blocks("python")[0])
    name, use = blocks("shell")
    typed(house, folder, name.removesuffix("python3 run.py\n"))
    house.start(cwd=folder)
    said = typed(house, folder, use[use.index("python3 run.py") :])
    assert said.splitlines()[-1].endswith('succeeded  "greeted Ada 3 times"')


def test_a_view_is_written_named_and_called_as_the_readme_says(house: House, folder: Path) -> None:
    for name, code in zip(("my_tasks", "my_views"), blocks("python"), strict=True):
        assert code.startswith(f"# {name}.py\n")
        (folder / f"{name}.py").write_text(code)
    modules = "CELERY_IMPORTS=tasks.scheduler,tasks.background,my_tasks"
    (folder / ".env").write_text(f"{modules}\nEXTENSIONS=my_views\n")
    house.start(cwd=folder)
    call = 'curl -s -H "Authorization: Bearer $TOKEN" -X POST http://127.0.0.1:8000/welcome/Ada'
    job = json.loads(typed(house, folder, call))["job"]
    said = typed(house, folder, f"python3 run.py jobs follow {job}")
    assert said.splitlines()[-1].endswith('succeeded  "greeted Ada 1 times"')
