"""Real parts for the tests: servers and processes of their own, and waiting without sleeping."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import NullPool, create_engine, make_url, text

from bench.parts import (
    ROOT,
    answers,
    environment,
    free_port,
    made_database,
    mariadb_command,
    mariadbd,
    python,
    redis_command,
    redis_program,
    until,
)
from quart_app import valkey
from settings import socket_path

__all__ = [
    "ROOT", "TASKS", "OwnRedis", "another_database", "answers", "embedded_valkey", "end",
    "environment", "eventually", "free_port", "listener", "mariadb", "mariadbd", "process",
    "python", "redis_program", "redis_server", "until", "worker",
]  # fmt: skip

TASKS = "tasks.scheduler,tasks.background,tests.sample_tasks"
T = TypeVar("T")


async def eventually(condition: Callable[[], Awaitable[T]], seconds: float = 60) -> T:
    """As `until`, for what has to be awaited."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.02)
    return found


@contextmanager
def process(
    argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, its output in `log`; ended with the block."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv, env=environment(env), cwd=cwd, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    finally:
        end(child)


class OwnRedis:
    """One that a test may stop, kill and start again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        argv = [redis_program(), "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        with process(argv, {}, self.folder / "redis.log", cwd=self.folder) as server:
            until(lambda: answers(self.url))
            yield server
            server.send_signal(signal.SIGCONT)


def end(child: subprocess.Popen[bytes]) -> None:
    """Asks the process to stop, and kills what is left of its group."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(15)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextmanager
def worker(env: Mapping[str, str], log: Path, *words: str) -> Iterator[Path]:
    """A real worker, once it is ready; the file of its log."""
    argv = python("celery", "-A", "tasks", "worker", "--loglevel=info", *words)
    with process(argv, env, log):
        until(lambda: " ready." in log.read_text())
        yield log


def script(
    text: str, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs it in an interpreter of its own, which warns of what it leaves open."""
    argv = [sys.executable, "-X", "dev", "-c", text, *words]
    return subprocess.run(
        argv,
        cwd=ROOT,
        env=environment(env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@contextmanager
def redis_server(folder: Path, port: int = 0) -> Iterator[str]:
    """A Redis on a port of loopback, a free one if not told; its URL."""
    port = port or free_port()
    with process(redis_command(folder, port), {}, folder / "redis.log"):
        url = f"redis://127.0.0.1:{port}/0"
        until(lambda: answers(url))
        yield url


@contextmanager
def listener() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port of loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def embedded_valkey(var: Path) -> Iterator[str]:
    """The Valkey that `up` would start in `var`; its URL."""
    with valkey.lock(var), process(valkey.command(var), {}, var / "valkey.log"):
        url = f"unix://{socket_path(var)}"
        until(lambda: answers(url))
        yield url


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    return False


@contextmanager
def mariadb(server: str, folder: Path, *words: str) -> Iterator[str]:
    """A MariaDB with a data folder of its own, on a free port; the URL of its database `test`."""
    port = free_port()
    argv = [*mariadb_command(server, folder, port), *words]
    with process(argv, {}, folder / "mariadb.log"):
        until(lambda: made_database(port, "test"))
        yield f"mysql://root@127.0.0.1:{port}/test"


def another_database(url: str) -> str:
    """A second, empty one on the same server; its URL."""
    other = make_url(url)
    other = other.set(database=f"{other.database}_busy")
    engine = create_engine(make_url(url).set(drivername="mysql+pymysql"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {other.database}"))
        connection.execute(text(f"CREATE DATABASE {other.database} CHARACTER SET utf8mb4"))
    return other.render_as_string(hide_password=False)
