"""Two webs and two workers are restarted in turn while clients work: none of them notices."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidMessage

from quart_app.models import JobState
from tests import real
from tests.conftest import Place
from tests.ledger import Ledger
from tests.web.conftest import answers
from tests.web.following import COUNT, Frames, Served, connect, drain, stored


class Part:
    """A process that a test stops and starts again."""

    def __init__(self, argv: Sequence[str], place: Place, log: Path) -> None:
        self._argv, self._place, self._log = argv, place, log
        self._lives = itertools.count()
        self._running = ExitStack()

    def start(self, is_up: Callable[[Path], bool]) -> None:
        self._is_up = is_up
        log = self._log.with_suffix(f".{next(self._lives)}")
        process = real.process(self._argv, self._place.env, log)
        self._process = self._running.enter_context(process)
        real.until(lambda: is_up(log))

    def restart(self) -> None:
        self._process.terminate()
        assert self._process.wait(20) == 0
        self._running.close()
        self.start(self._is_up)

    def end(self) -> None:
        self._running.close()


class Fleet:
    def __init__(self, place: Place, folder: Path) -> None:
        self.ports = [real.free_port() for _ in range(2)]
        self._place, self._folder = place, folder
        self.parts: list[Part] = []

    def start(self) -> None:
        for port in self.ports:
            serve = ("quart", "--app", "asgi", "serve", "--bind", f"127.0.0.1:{port}")
            self._add(f"web-{port}", serve, _answers(port))
        for name in ("one", "two"):
            worker = ("celery", "-A", "tasks", "worker", "--loglevel=info", "--concurrency=2")
            self._add(name, (*worker, "-n", f"{name}@%h"), lambda log: " ready." in log.read_text())

    def _add(self, name: str, words: Sequence[str], is_up: Callable[[Path], bool]) -> None:
        part = Part(real.python(*words), self._place, self._folder / name)
        self.parts.append(part)
        part.start(is_up)


def _answers(port: int) -> Callable[[Path], bool]:
    return lambda _: answers(f"http://127.0.0.1:{port}")


class Client:
    """Submits and follows, each time at the next web; at the other one if that is not there."""

    def __init__(self, ports: Sequence[int], secret: str) -> None:
        self._secret = secret
        self._webs = itertools.cycle(f"http://127.0.0.1:{port}" for port in ports)
        self._keys = itertools.count()
        #: What was answered, and how sockets were closed.
        self.statuses: set[int] = set()
        self.codes: set[int] = set()
        self.told: dict[str, Frames] = {}

    async def work_until(self, over: asyncio.Event) -> None:
        headers = {"Authorization": f"Bearer {self._secret}"}
        async with httpx.AsyncClient(headers=headers, timeout=20) as http:
            while not over.is_set():
                job_id = await self._submit(http)
                self.told[job_id] = await self._follow(job_id)

    async def _submit(self, http: httpx.AsyncClient) -> str:
        body = {"task": COUNT, "kwargs": {"steps": 3, "pause": 0.05}}
        headers = {"Idempotency-Key": str(next(self._keys))}
        while True:
            try:
                answer = await http.post(f"{next(self._webs)}/api/jobs", json=body, headers=headers)
            except httpx.TransportError:
                continue  # it was not there, or is no longer: the other one knows the key
            self.statuses.add(answer.status_code)
            return str(answer.raise_for_status().json()["id"])

    async def _follow(self, job_id: str) -> Frames:
        seen: Frames = []
        while True:
            web: Any = Served(next(self._webs), 0, Path(), None)
            try:
                async with connect(web, job_id, self._secret, after=len(seen)) as socket:
                    frames, code = await drain(socket)
            except (OSError, InvalidMessage):
                continue
            seen += stored(frames)
            self.codes.add(code)
            if code == 1000:
                return seen


@pytest.fixture
def fleet(clean: Place, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(clean, tmp_path)
    try:
        fleet.start()
        yield fleet
    finally:
        for part in fleet.parts:
            part.end()


async def test_a_rolling_restart_costs_nothing_but_coming_again(
    fleet: Fleet, secret: str, still: Ledger
) -> None:
    client, over = Client(fleet.ports, secret), asyncio.Event()
    working = [asyncio.create_task(client.work_until(over)) for _ in range(6)]
    for part in fleet.parts:
        await asyncio.to_thread(part.restart)
    over.set()
    await asyncio.gather(*working)
    assert client.statuses == {202}
    assert client.codes <= {1000, 1012}
    kept = still.jobs()
    assert sorted(client.told) == [job.id for job in kept]
    assert len(kept) == next(client._keys)
    assert {(job.state, job.attempt) for job in kept} == {(JobState.SUCCEEDED, 1)}
    for frames in client.told.values():
        assert [frame["seq"] for frame in frames] == list(range(1, 7))
