"""One installation of Quartermaster on the servers of a run."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from subprocess import Popen
from typing import Any

import urllib3
from redis import Redis
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from bench.load import Request
from bench.parts import free_port, made_database, python, until
from bench.run import Run
from bench.venvs import packages
from quart_app import migrations, tokens
from quart_app.db import Database
from quart_app.models import Role

NOTHING = "bench.tasks.nothing"
SERVERS = ("hypercorn", "uvicorn", "granian")
# What the peers' servers are made faster by serves ours too: behind all that is ours.
_WITH_PEERS_PARTS = "import runpy, sys; sys.path.append(sys.argv.pop(1)); sys.argv.pop(0); "
_RUN = "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


@dataclass(frozen=True)
class Web:
    """One web process that answers."""

    url: str
    pid: int
    headers: Mapping[str, str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def submit(self, task: str = NOTHING) -> Request:
        return Request(f"{self.url}/api/jobs", body=f'{{"task": "{task}"}}', headers=self.headers)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON; raises for anything but success."""
        return json.loads(self.read(path, method, **options))

    def read(self, path: str, method: str = "GET", **options: Any) -> bytes:
        """The answer; raises for anything but success."""
        answer = urllib3.request(
            method, f"{self.url}{path}", headers=self.headers, timeout=60, retries=False, **options
        )
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.data[:500]!r}")
        return answer.data


@dataclass
class Site:
    """A database, a Redis and a folder of its own; `env` is set beyond what each needs."""

    run: Run
    name: str
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made_database(make_url(self.run.mariadb).port or 0, self.name)
        self.database_url = f"{self.run.mariadb}/{self.name}"
        self.redis_url = f"{self.run.redis}/0"
        with Redis.from_url(self.redis_url) as redis:
            redis.flushdb()  # what is left belongs to another site
        self._database = Database(self.database_url)
        migrations.upgrade(self._database)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "VAR_DIR": str(self.run.folder / f"var-{self.name}"),
            "SECRET_KEY": "known to nobody but this run",
            "CELERY_IMPORTS": "bench.tasks",
            "CELERY_BEAT_SCHEDULE": "{}",
            **self.env,
        }

    @cached_property
    def headers(self) -> Mapping[str, str]:
        with self._database.session() as session:
            secret = tokens.create(session, "bench", Role.OPERATOR)
        return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}

    @contextmanager
    def web(self, server: str = "hypercorn") -> Iterator[Web]:
        """One process of the server; `hypercorn` as `up` runs it."""
        with self.web_by(partial(_serving, server), server) as web:
            yield web

    @contextmanager
    def web_by(self, argv: Callable[[int], Sequence[str]], called: str) -> Iterator[Web]:
        """One process that serves on the port it is given."""
        port, name = free_port(), f"{self.name}-{called}"
        with self.run.process(name, argv(port), self.settings) as process:
            url = f"http://127.0.0.1:{port}"
            self.run.wait_for(name, process, lambda: answers(f"{url}/healthz"))
            yield Web(url, process.pid, self.headers)

    @contextmanager
    def worker(self, *words: str) -> Iterator[Popen[bytes]]:
        name = f"{self.name}-worker"
        argv = python("celery", "-A", "tasks", "worker", "--loglevel=warning", *words)
        with self.run.process(name, argv, self.settings) as process:
            self.run.wait_for(name, process, self._hears_worker)
            yield process

    def query(self, sql: str, *values: Any) -> Sequence[Any]:
        """The rows; `%s` stands for each of the values."""
        with self._database.session() as session:
            found = session.connection().exec_driver_sql(sql, values)
            return found.all() if found.returns_rows else ()

    def count(self, condition: str = "TRUE") -> int:
        return int(self.query(f"SELECT COUNT(*) FROM jobs WHERE {condition}")[0][0])

    def empty(self) -> None:
        """No job is left, not even of a request that nobody waits for any more."""
        until(self._is_emptied)

    def wait_until_published(self) -> None:
        """What was accepted has been handed to the broker, all of it."""
        until(lambda: self.count("published_at IS NULL") == 0)

    def _is_emptied(self) -> bool:
        try:
            self.query("DELETE FROM jobs")
        except OperationalError:  # a deadlock with who is still at it
            return False
        return self.count() == 0

    def _hears_worker(self) -> bool:
        return bool(self.query("SELECT name FROM nodes WHERE kind = 'worker'"))


def _serving(server: str, port: int) -> list[str]:
    if server == "hypercorn":
        return python("quart", "--app", "asgi", "serve", "--bind", f"127.0.0.1:{port}")
    code = _WITH_PEERS_PARTS + _RUN
    return [sys.executable, "-c", code, str(packages()), *serving(server, "asgi:app", port)]


def serving(server: str, app: str, port: int) -> list[str]:
    """The module and words for one process of an ASGI server, as its documentation has them."""
    at = ["--host", "127.0.0.1", "--port", str(port)]
    return {
        "hypercorn": ["hypercorn", app, "--bind", f"127.0.0.1:{port}", "--workers", "1"],
        "uvicorn": ["uvicorn", app, *at, "--no-access-log", "--log-level", "warning"],
        "granian": ["granian", app, *at, "--interface", "asgi", "--workers", "1"],
    }[server]


def answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, retries=False, timeout=2).status < 500
    except urllib3.exceptions.HTTPError:
        return False
