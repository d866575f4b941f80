"""One run's own world in a folder: Redis, a database, two of each process, all on loopback."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import urllib3
from redis import Redis
from sqlalchemy import text

from bench import parts
from bench.chaos import tables
from bench.chaos.clocks import Clocks
from bench.chaos.crew import Crew
from bench.chaos.disk import Disk
from bench.chaos.systems import System
from quart_app.db import Database

AOF = ("--appendonly", "yes", "--appendfsync", "everysec")
WEBS, WORKERS, BEATS = ("web-1", "web-2"), ("worker-1", "worker-2"), ("beat-1", "beat-2")


class Place:
    """Ready to be used within its block; nothing of it is left afterwards but the folder."""

    def __init__(
        self,
        folder: Path,
        system: System,
        database: str,
        *,
        may_be_full: bool = False,
        sets_clocks: bool = False,
    ) -> None:
        self.system, self.kind = system, database
        self.folder, self.logs = folder, folder / "logs"
        stored = folder / "stored"
        for made in (self.logs, stored):
            made.mkdir()
        #: Where Redis and SQLite keep what they have, if that is to become full.
        self.disk = Disk(stored) if may_be_full else None
        self.clocks = Clocks(folder / "clocks") if sets_clocks else None
        self.redis_folder = stored / "redis"
        self.redis_folder.mkdir()
        self.crew = Crew(self.logs)
        self.redis_port = parts.free_port()
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}/0"
        self.ports = {name: parts.free_port() for name in WEBS}
        self.headers: dict[str, str] = {}
        self.database_url = f"sqlite:///{stored}/quartermaster.sqlite3"

    def __enter__(self) -> "Place":
        try:
            self._start_servers()
            self.database = Database(self.database_url)
            self._prepare()
            self._start_parts()
            self.crew.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.database.dispose()
        self._end()

    def _end(self) -> None:
        self.crew.stop()
        if self.disk:
            self.disk.close()

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports.values()]

    @property
    def env(self) -> dict[str, str]:
        place = {
            "VAR_DIR": str(self.folder / "var"),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
        }
        return place | dict(self.system.env)

    def redis(self) -> Redis:
        return Redis.from_url(self.redis_url, socket_timeout=2)

    def _start_servers(self) -> None:
        redis = [*parts.redis_command(self.redis_folder, self.redis_port), *AOF]
        self.crew.add("redis", redis, {})
        if self.kind == "mariadb":
            port, server = parts.free_port(), parts.mariadbd() or ""
            self.crew.add("mariadb", parts.mariadb_command(server, self.folder, port), {})
            parts.until(lambda: parts.made_database(port, "chaos"))
            self.database_url = f"mysql://root@127.0.0.1:{port}/chaos"
        parts.until(lambda: parts.answers(self.redis_url))

    def _prepare(self) -> None:
        if self.system.is_ours:
            self._quart("migrate")
            token = self._quart("tokens", "create", "chaos", "--role", "operator")
            self.headers["Authorization"] = f"Bearer {token.split()[-1]}"
        with self.database.session() as session:
            tables.metadata.create_all(session.connection())

    def _quart(self, *words: str) -> str:
        argv, env = parts.python("quart", "--app", "asgi", *words), parts.environment(self.env)
        done = subprocess.run(
            argv, env=env, cwd=parts.ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def _start_parts(self) -> None:
        for name, port in self.ports.items():
            self._add(name, self.system.web(port))
        for name in WORKERS:
            self._add(name, self.system.worker(name))
        for name in BEATS:
            self._add(name, self.system.beat(name, self.folder))
        for url in self.urls:
            parts.until(lambda url=url: _is_up(url), 60)  # type: ignore[misc]
        for name in WORKERS:
            log = self.crew.parts[name].log
            parts.until(lambda log=log: " ready." in log.read_text(), 60)  # type: ignore[misc]

    def _add(self, name: str, argv: Sequence[str]) -> None:
        self.crew.add(name, argv, self.env | (self.clocks.env(name) if self.clocks else {}))

    def count(self, sql: str) -> int:
        with self.database.session(reading=True) as session:
            return int(session.execute(text(sql)).scalar_one())


def _is_up(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/healthz", retries=False, timeout=2).status == 200
    except urllib3.exceptions.HTTPError:
        return False
