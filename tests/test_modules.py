"""Every module imports by itself, and importing one changes nothing outside of it."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import real
from tests.real import ROOT

BRIDGE = ROOT / "quart_app" / "celeryext"
ALONE = """
import sys
from quart import Quart, current_app
from quart_celeryext import QuartCelery

app = Quart("alone")
app.config["CELERY_TASK_ALWAYS_EAGER"] = True


@QuartCelery(app).celery.task
async def name():
    return current_app.name


print(name.delay().get(), [name for name in sys.modules if name.startswith("quart_app")])
"""
#: Alembic runs it with a connection in hand: it is no module to import.
SCRIPTS = {"quart_app.migrations.env"}
# What is not ours is loaded once; each module is then imported in a fork of its own.
EACH = """
import importlib, json, os, sys
ours = ("quart_app", "tasks", "settings", "asgi", "run")

def forked(work):
    reader, writer = os.pipe()
    if os.fork() == 0:
        with open(writer, "w") as said:
            said.write(work())
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        result = said.read()
    os.wait()
    return result

def libraries():
    import asgi, tasks.celery
    return " ".join(name for name in sys.modules if name.partition(".")[0] not in ours)

for name in forked(libraries).split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass

def refuse(event, args):
    writes = event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    changes = event in ("os.mkdir", "os.remove", "os.rename", "os.link", "os.chmod")
    connects = event in ("socket.connect", "socket.bind", "sqlite3.connect", "subprocess.Popen")
    if (writes and args[0] != os.devnull) or changes or connects:
        raise RuntimeError(f"{event} {args[0]}")

def attempt(name):
    sys.addaudithook(refuse)
    try:
        importlib.import_module(name)
    except BaseException as error:
        return f"{name}: {type(error).__name__}: {error}"
    tasks = [other for other in sys.modules if other.partition(".")[0] == "tasks"]
    if name.startswith("quart_app") and tasks:
        return f"{name} imports {tasks}"
    return ""

for name in json.loads(sys.argv[1]):
    if wrong := forked(lambda: attempt(name)):
        print(wrong)
"""


def modules() -> list[str]:
    folders = [*ROOT.glob("*.py"), *ROOT.glob("quart_app/**/*.py"), *ROOT.glob("tasks/**/*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in folders}
    return sorted({name.removesuffix(".__init__") for name in names} - SCRIPTS)


def test_every_module_imports_alone_and_touches_nothing(tmp_path: Path) -> None:
    var = tmp_path / "var"
    env = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", "VAR_DIR": str(var)}
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(modules())], cwd=ROOT, text=True,
        env=env | {"SECRET_KEY": "x"}, capture_output=True, check=False, timeout=110,
    )  # fmt: skip
    assert len(modules()) > 40
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not var.exists()


def packages(path: Path) -> set[str]:
    """What its imports name first; for a relative one its dots."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    named = plain + [node.module or "" for node in froms if not node.level]
    return {name.partition(".")[0] for name in named} | {"." * node.level for node in froms}


@pytest.mark.parametrize("path", sorted(ROOT.glob("quart_app/**/*.py")), ids=lambda p: p.stem)
def test_a_module_of_the_application_never_names_the_tasks(path: Path) -> None:
    assert "tasks" not in packages(path)


@pytest.mark.parametrize("path", sorted(BRIDGE.glob("*.py")), ids=lambda p: p.stem)
def test_the_bridge_imports_quart_celery_and_itself_alone(path: Path) -> None:
    assert packages(path) - sys.stdlib_module_names <= {"quart", "celery", ".", ""}


def test_the_bridge_works_under_another_name_far_from_here(tmp_path: Path) -> None:
    shutil.copytree(BRIDGE, tmp_path / "quart_celeryext")
    argv = [sys.executable, "-P", "-c", ALONE]
    env = real.environment({"PYTHONPATH": str(tmp_path)})
    done = subprocess.run(argv, cwd=tmp_path, env=env, text=True, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == ("alone []\n", "")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("quart_app/**/*.py")) + sorted(ROOT.glob("tasks/*.py"))
)
def test_a_module_says_in_a_sentence_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    assert not text or first.endswith(".")
