"""Many sockets on one web process while web, worker and Redis are each restarted once.

`python -m bench.sockets --sockets 2000`: each socket follows a job of its own and comes back with
its cursor whenever it is closed. Exits 1 unless every client has the whole sequence of its job,
1 to n, nothing missing and nothing twice, and its end.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import websockets
from sqlalchemy import create_engine, func, make_url, select

from quart_app.models import Event
from tests import real

TASK, LINES, PAUSE = "tests.sample_tasks.count", 18, 0.2
ENDS = ("succeeded", "failed", "cancelled")
DEADLINE = 1_200
BATCH = 500


class Site:
    """The parts under load, each a process of its own that can be ended and started again."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder, self.database_url = folder, database_url
        self.redis, self.web = real.free_port(), real.free_port()
        self.address = f"127.0.0.1:{self.web}"
        self._running: dict[str, tuple[Popen[bytes], ExitStack]] = {}

    @property
    def env(self) -> dict[str, str]:
        return {
            "VAR_DIR": str(self.folder),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": f"redis://127.0.0.1:{self.redis}/0",
            "SECRET_KEY": "of a load test",
            "CELERY_IMPORTS": real.TASKS,
            "JOB_LEASE": "5",
        }

    def start(self, name: str) -> None:
        stack = ExitStack()
        process = real.process(self._argv(name), self.env, self.folder / f"{name}.log")
        self._running[name] = stack.enter_context(process), stack

    def end(self, name: str, by: signal.Signals) -> None:
        process, stack = self._running.pop(name)
        process.send_signal(by)
        process.wait(60)
        stack.close()

    def end_all(self) -> None:
        for name in list(self._running):
            self.end(name, signal.SIGTERM)

    def command(self, *words: str) -> str:
        argv = real.python("quart", "--app", "asgi", *words)
        with real.process(argv, self.env, self.folder / "command.log") as process:
            assert process.wait(60) == 0, (self.folder / "command.log").read_text()
        return (self.folder / "command.log").read_text().split()[-1]

    def memory(self) -> int:
        """Megabytes that the web process holds."""
        process, _ = self._running["web"]
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    def failures(self) -> list[str]:
        """What the web could not make sense of itself."""
        lines = (self.folder / "web.log").read_text().splitlines()
        return [line for line in lines if "A socket failed" in line]

    def _argv(self, name: str) -> list[str]:
        words = ("-A", "tasks", "worker", "--loglevel=warning", "-P", "threads", "-c", "60")
        parts = {
            "redis": [real.redis_program(), "--port", str(self.redis), "--save", ""],
            "web": real.python("quart", "--app", "asgi", "serve", "--bind", self.address),
            "worker": real.python("celery", *words),
        }
        return parts[name]


class Client:
    """Follows one job to its end, however often it is sent away."""

    def __init__(self, job_id: str, site: Site, token: str, tally: "Tally") -> None:
        self.job_id, self.cursor, self.ended = job_id, 0, False
        self._url = f"ws://{site.address}/ws/jobs/{job_id}?after="
        self._headers = {"Authorization": f"Bearer {token}"}
        self._tally = tally

    async def run(self) -> None:
        while not self.ended:
            code = await self._follow()
            self._tally.closed[code] += 1
            if code == "1000" and not self.ended:
                self._tally.faults.append(f"{self.job_id}: closed before its end")
                return
            await asyncio.sleep(random.uniform(0.1, 2.0))

    async def _follow(self) -> str:
        try:
            async with websockets.connect(
                self._url + str(self.cursor), additional_headers=self._headers,
                proxy=None, open_timeout=30, compression=None,
            ) as socket:  # fmt: skip
                self._tally.connected.add(self.job_id)
                async for text in socket:
                    self._take(json.loads(text))
            return str(socket.close_code)
        except websockets.ConnectionClosed as closed:
            return f"{closed.rcvd.code} {closed.rcvd.reason}" if closed.rcvd else "1006"
        except (OSError, TimeoutError, websockets.InvalidHandshake) as error:
            return type(error).__name__

    def _take(self, frame: dict[str, Any]) -> None:
        if "seq" not in frame:
            return
        if frame["seq"] != self.cursor + 1:
            self._tally.faults.append(f"{self.job_id}: {frame['seq']} after {self.cursor}")
        self.cursor = frame["seq"]
        self._tally.events += 1
        if frame.get("state") in ENDS:
            self.ended = True
            self._tally.ended += 1


class Tally:
    """What all clients have seen."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.closed: Counter[str] = Counter()
        self.faults: list[str] = []
        self.events = self.ended = 0


async def load(site: Site, sockets: int) -> list[str]:
    """The faults that were found."""
    site.start("redis")
    site.command("migrate")
    token = site.command("tokens", "create", "bench", "--role", "operator")
    site.start("web")
    tally = Tally()
    clients = [Client(id_, site, token, tally) for id_ in await submit(site, token, sockets)]
    async with AsyncExitStack() as stack:
        stack.callback(site.end_all)
        running = [asyncio.create_task(client.run()) for client in clients]
        await reached(lambda: len(tally.connected) == sockets, "all are connected")
        print(f"{sockets} sockets are open; the web holds {site.memory()} MB")
        site.start("worker")
        restarts = {"web": signal.SIGTERM, "worker": signal.SIGKILL, "redis": signal.SIGKILL}
        for share, (name, by) in enumerate(restarts.items(), 1):
            await reached(lambda share=share: tally.ended >= sockets * share // 4, name)
            print(f"{tally.ended} jobs have ended: {name} is restarted by {by.name}")
            await asyncio.to_thread(site.end, name, by)
            site.start(name)
        await asyncio.wait(running, timeout=DEADLINE)
        print(f"the web holds {site.memory()} MB")
        for task in running:
            task.cancel()
    print(f"{tally.ended} ends, {tally.events} events, closed: {dict(tally.closed)}")
    return tally.faults + unlike_the_rows(site, clients) + site.failures()


async def submit(site: Site, token: str, count: int) -> list[str]:
    job = {"task": TASK, "kwargs": {"steps": LINES, "pause": PAUSE}}
    ids: list[str] = []
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://{site.address}", headers=headers) as http:
        await real.eventually(lambda: answers(http), 60)
        while len(ids) < count:
            body = {"jobs": [job] * min(BATCH, count - len(ids))}
            answer = await http.post("/api/jobs/batch", json=body, timeout=60)
            ids += answer.raise_for_status().json()["ids"]
    return ids


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def reached(condition: Any, what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


def unlike_the_rows(site: Site, clients: list[Client]) -> list[str]:
    """Where a client has not seen to its end what the database has."""
    url = make_url(site.database_url)
    driver = "sqlite" if url.get_backend_name() == "sqlite" else "mysql+pymysql"
    counted = select(Event.job_id, func.count(), func.max(Event.seq)).group_by(Event.job_id)
    with create_engine(url.set(drivername=driver)).connect() as connection:
        rows = {job: (count, newest) for job, count, newest in connection.execute(counted)}
    return [
        f"{each.job_id}: saw {each.cursor}, ended {each.ended}, rows {rows[each.job_id]}"
        for each in clients
        if not each.ended or rows[each.job_id] != (each.cursor, each.cursor)
    ]


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    server = real.mariadbd() if kind == "mariadb" else None
    sqlite = nullcontext(f"sqlite:///{folder}/bench.sqlite3")
    with real.mariadb(server, folder) if server else sqlite as url:
        yield url


def main(given: Mapping[str, Any]) -> int:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, database(given["database"], Path(name)) as url:
        faults = asyncio.run(load(Site(Path(name), url), given["sockets"]))
    print(f"{len(faults)} faults in {time.monotonic() - began:.0f} s")
    for fault in faults[:20]:
        print(fault)
    return bool(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=2_000)
    parser.add_argument("--database", choices=["mariadb", "sqlite"], default="mariadb")
    os.environ.pop("DATABASE_URL", None)
    sys.exit(main(vars(parser.parse_args())))
