"""Life lines: a node counts as ended when its last process has, and not before."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quart_app import lifelines
from tests.real import ROOT, script, until

NODE = """
import os, signal, sys, pathlib
from quart_app import lifelines
line = lifelines.hold(pathlib.Path(sys.argv[1]), "boot")
child = os.fork()
if child:
    print(child, flush=True)
signal.pause()
"""


@contextmanager
def node(var: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds a line, and the pid of the child that it forked."""
    argv = [sys.executable, "-c", NODE, str(var)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=-1, text=True, start_new_session=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            subprocess.run(["kill", "-9", str(child)], check=False, capture_output=True)


def test_a_node_has_ended_when_its_last_process_has(tmp_path: Path) -> None:
    with node(tmp_path) as (process, child):
        assert list(lifelines.ended(tmp_path)) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(lifelines.ended(tmp_path)) == []
        subprocess.run(["kill", "-9", str(child)], check=True)
        assert until(lambda: list(lifelines.ended(tmp_path))) == ["boot"]
    assert list(lifelines.ended(tmp_path)) == []


def test_a_node_that_could_not_be_seen_to_comes_again(tmp_path: Path) -> None:
    line = lifelines.hold(tmp_path, "boot")
    assert line
    line.close()
    for boot in lifelines.ended(tmp_path):
        assert boot == "boot"
        break  # as when the database is away
    assert list(lifelines.ended(tmp_path)) == ["boot"]


def test_a_child_that_came_to_be_meanwhile_keeps_no_node_from_being_seen_to(tmp_path: Path) -> None:
    assert script(FORKED, str(tmp_path)).stdout == "['boot']\n"


FORKED = """
import os, pathlib, signal, sys
from quart_app import lifelines
var = pathlib.Path(sys.argv[1])
lifelines.hold(var, "boot").close()
for boot in lifelines.ended(var):
    child = os.fork() or signal.pause()
    break  # as when the database is away
print(list(lifelines.ended(var)))
os.kill(child, signal.SIGKILL)
"""


def test_one_sees_to_a_node_at_a_time(tmp_path: Path) -> None:
    line = lifelines.hold(tmp_path, "boot")
    assert line
    line.close()
    for _ in lifelines.ended(tmp_path):
        assert list(lifelines.ended(tmp_path)) == []


def test_a_folder_without_nodes_has_none_that_ended(tmp_path: Path) -> None:
    assert list(lifelines.ended(tmp_path / "none")) == []
