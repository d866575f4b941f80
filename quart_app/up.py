"""`up`: the parts of one machine, what each is started with, and when it is ready."""

import asyncio
import hashlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.request import urlopen

from quart import Quart

from quart_app import nodes, valkey
from quart_app.supervisor import Part

_ROOT = str(Path(__file__).parents[1])
_PATHS = filter(None, (_ROOT, os.environ.get("PYTHONPATH")))
_ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(_PATHS)}


def listen(bind: str) -> socket.socket:
    """The socket all web processes share; it outlives each of them. Raises OSError."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, int(port)))
    sock.listen(1024)
    return sock


def address(sock: socket.socket) -> str:
    """Where a browser on this machine finds the console."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def stages(
    app: Quart, sock: socket.socket, workers: int, concurrency: int | None
) -> list[list[Part]]:
    """What starts after what."""
    webs = [_web(app, sock, number) for number in range(1, workers + 1)]
    working = [*webs, _worker(app, concurrency), _beat(app)]
    return [[_valkey(app)], working] if app.config["EMBEDDED_REDIS"] else [working]


def _valkey(app: Quart) -> Part:
    var: Path = app.config["VAR_DIR"]
    return Part(
        name="valkey",
        argv=valkey.command(var),
        ready=lambda: valkey.ready(var),
        quiet=valkey.QUIET,
        last_signal=signal.SIGTERM,
    )


def _web(app: Quart, sock: socket.socket, number: int) -> Part:
    host = sock.getsockname()[0]
    hosts = [*app.config["ALLOWED_HOSTS"], f"[{host}]" if ":" in host else host]
    return Part(
        name="web" if number == 1 else f"web {number}",
        argv=_python("quart", "--app", "asgi", "serve", "--fd", str(sock.fileno())),
        env=_ENVIRONMENT | {"ALLOWED_HOSTS": ",".join(dict.fromkeys(hosts))},
        ready=lambda: asyncio.to_thread(_answers, f"{address(sock)}/healthz"),
        pass_fds=[sock.fileno()],
    )


def _worker(app: Quart, concurrency: int | None) -> Part:
    # Two instances on one machine may share a database: their workers' names must differ.
    var = hashlib.sha256(os.fsencode(app.config["VAR_DIR"])).hexdigest()[:8]
    argv = _python("celery", "-A", "tasks", "worker", "--loglevel=info", f"--hostname={var}@%h")
    if concurrency:
        argv.append(f"--concurrency={concurrency}")
    return Part(
        name="worker", argv=argv, env=_ENVIRONMENT, ready=_heard_of(app, "worker"), grace=20
    )


def _beat(app: Quart) -> Part:
    argv = _python("celery", "-A", "tasks", "beat", "--loglevel=info")
    return Part(name="beat", argv=argv, env=_ENVIRONMENT, ready=_heard_of(app, "beat"))


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as answer:  # noqa: S310 - an address of ours
            return bool(answer.status == 200)
    except OSError:
        return False


def _heard_of(app: Quart, kind: str) -> Callable[[], Awaitable[bool]]:
    database = app.extensions["db"]

    def look() -> bool:
        with database.session(reading=True) as session:
            return any(node.info["pid"] for node in nodes.online(session, kind))

    return lambda: asyncio.to_thread(look)
