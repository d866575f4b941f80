"""Real parts for benches and tests: how to start servers and processes, and to wait for them."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from random import sample
from typing import TypeVar

import pymysql
from redis import Redis
from redis.exceptions import RedisError

from quart_app import valkey

ROOT = Path(__file__).parents[1]
T = TypeVar("T")
#: Below what the system gives to connections; a thousand for each worker of pytest.
_FIRST_PORT = 20_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw11")[2:]) % 12 * 1_000
_ports = cycle(sample(range(_FIRST_PORT, _FIRST_PORT + 1_000), 1_000))


def until(condition: Callable[[], T], seconds: float = 60) -> T:
    """What `condition` returns as soon as it is true; raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {condition}")
        time.sleep(0.02)
    return found


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Ours, without any setting, and with `env`."""
    return {name: value for name, value in os.environ.items() if not _is_setting(name)} | dict(env)


def python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def free_port() -> int:
    """One that is given to nobody else soon: it may be left for a while, and taken again."""
    while True:
        port = next(_ports)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def redis_program() -> str:
    return shutil.which("redis-server") or str(valkey.find_server())


def redis_command(folder: Path, port: int) -> list[str]:
    """Keeps nothing on disk, unless words for that are added."""
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    return [redis_program(), *place, "--save", ""]


def answers(url: str) -> bool:
    """Whether a Redis does."""
    with Redis.from_url(url, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except (RedisError, OSError):
            return False


def mariadbd() -> str | None:
    """A MariaDB or MySQL server program of this machine."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which("mariadbd", path=places) or shutil.which("mysqld", path=places)


def mariadb_command(server: str, folder: Path, port: int) -> list[str]:
    """For a data folder of its own in `folder`, which is made here."""
    user = ["--user=root"] if os.getuid() == 0 else []
    # A server that starts empties its folder for temporary files, that of a neighbour too.
    data = ["--no-defaults", f"--datadir={folder}/data", f"--tmpdir={folder}", *user]
    made = subprocess.run(
        ["mariadb-install-db", *data, "--auth-root-authentication-method=normal",
         "--innodb-log-file-size=16M"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode:
        raise RuntimeError(f"mariadb-install-db: {made.stdout[-2000:]}{made.stderr[-2000:]}")
    address = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder}/socket"]
    return [server, *data, *address]


def made_database(port: int, name: str) -> bool:
    """Makes it if it is not there; False while the server does not answer."""
    try:
        with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
            connection.cursor().execute(
                f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4"
            )
    except pymysql.err.OperationalError:
        return False
    return True


def _is_setting(name: str) -> bool:
    known = ("DATABASE_URL", "REDIS_URL", "VAR_DIR", "SECRET_KEY", "SMS_PROVIDER", "ALLOWED_HOSTS")
    return name in known or name.startswith(("CELERY_", "OTEL_"))
