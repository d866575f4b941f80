"""start: how long `up` takes until all of it is ready, and the import of the application."""

import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from subprocess import Popen

from bench.figures import Goal, Line
from bench.parts import free_port, python
from bench.run import Run

_READY = "Quartermaster is ready"


def measure(run: Run) -> Sequence[Line]:
    """On SQLite and the embedded Valkey, as they are where nothing is configured."""
    env = {"VAR_DIR": str(run.folder / "up"), "CELERY_BEAT_SCHEDULE": "{}"}
    up, imported = partial(_up, run, env), partial(_imported, run, env)
    run.warm_up(up)  # makes the tables and the bytecode
    rounds = [(up(), imported()) for _ in range(run.rounds)]
    ups, imports = zip(*rounds, strict=True)
    return [
        Line("start, up", "s", ups, Goal("≤", 3)),
        Line("start, import asgi", "s", imports, Goal("≤", 0.6)),
    ]


def _up(run: Run, env: dict[str, str]) -> float:
    words = ("--app", "asgi", "up", "--bind", f"127.0.0.1:{free_port()}", "--concurrency", "2")
    log = run.log("up")
    log.write_text("")
    began = time.monotonic()
    with run.process("up", python("quart", *words), env) as process:
        run.wait_for("up", process, lambda: _READY in log.read_text())
        took = time.monotonic() - began
        _stop(process, log)
    return took


def _stop(process: Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGINT)
    if process.wait(40):
        raise RuntimeError(f"up did not stop well:\n{log.read_text()[-2000:]}")


def _imported(run: Run, env: dict[str, str]) -> float:
    began = time.monotonic()
    with run.process("import", [sys.executable, "-c", "import asgi"], env) as process:
        if process.wait(60):
            raise RuntimeError(run.log("import").read_text())
        return time.monotonic() - began
