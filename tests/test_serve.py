"""`serve` as a process of its own: it answers, and ends cleanly with sockets open."""

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from quart_app.models import Role
from tests import real
from tests.conftest import Place, make_token
from tests.web.conftest import serving


class Web:
    """A `serve` that answers, and how to speak to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, token: str) -> None:
        self.process, self.address, self.token = process, address, token
        self.headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(
            base_url=f"http://{address}", headers=self.headers, trust_env=False, timeout=10
        )

    def waiting_job(self) -> str:
        body = {"task": "tests.sample_tasks.add", "args": [1], "delay": 3600}
        return str(self.http.post("/api/jobs", json=body).raise_for_status().json()["id"])

    def answers(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def web(clean: Place, tmp_path: Path) -> Iterator[Web]:
    app = clean.app()
    token = make_token(app.extensions["db"], Role.OPERATOR)
    address = f"127.0.0.1:{real.free_port()}"
    argv = real.python("quart", "--app", "asgi", "serve", "--bind", address)
    with real.process(argv, clean.env, tmp_path / "log") as process:
        one = Web(process, address, token)
        real.until(one.answers)
        yield one
        one.http.close()


async def test_sigterm_closes_open_sockets_with_1012_and_ends_with_0(web: Web) -> None:
    url = f"ws://{web.address}/ws/jobs/{web.waiting_job()}"
    async with connect(url, additional_headers=web.headers, proxy=None) as socket:
        await socket.recv()
        began = time.monotonic()
        web.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 5)
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1012
    assert await asyncio.to_thread(web.process.wait, 5) == 0
    assert time.monotonic() - began < 5


def test_sigterm_ends_open_event_streams(web: Web) -> None:
    path = f"/api/jobs/{web.waiting_job()}/events"
    with web.http.stream("GET", path, headers={"Accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "id: 1"
        web.process.send_signal(signal.SIGTERM)
        assert "retry: 1000" in list(lines)
    assert web.process.wait(5) == 0


def test_ctrl_c_with_an_idle_connection_ends_at_once(web: Web) -> None:
    began = time.monotonic()
    web.process.send_signal(signal.SIGINT)
    assert web.process.wait(10) == 0
    assert time.monotonic() - began < 7


def test_a_request_in_hand_is_answered_before_the_end(web: Web) -> None:
    body = b'{"task": "tests.sample_tasks.add", "args": [1]}'

    def slowly() -> Iterator[bytes]:
        yield body[:10]
        web.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # the rest comes while it is stopping
        yield body[10:]

    headers = {"Content-Type": "application/json"}
    assert web.http.post("/api/jobs", content=slowly(), headers=headers).status_code == 202
    assert web.process.wait(10) == 0


def test_a_line_of_its_log_says_when_how_bad_and_who(
    clean: Place, tmp_path: Path, closed: str
) -> None:
    nobody, log = f"redis://{closed}/0", tmp_path / "log"
    headers = {"Authorization": f"Bearer {make_token(clean.app().extensions['db'], Role.OPERATOR)}"}
    body = {"task": "tests.sample_tasks.add", "args": [1]}
    with serving(clean, log, REDIS_URL=nobody, CELERY_BROKER_URL=nobody) as web:
        answer = httpx.post(f"{web.address}/api/jobs", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 202
        assert real.until(lambda: "The broker did not take" in log.read_text())
    line = r"^\[[\d-]{10} [\d:,]{12}: WARNING/quart_app\.publisher\] The broker did not take"
    assert re.search(line, log.read_text(), re.MULTILINE)


@pytest.mark.parametrize("by", ["serve", "hypercorn"])
def test_a_line_of_the_servers_own_stands_in_its_log_once(
    clean: Place, tmp_path: Path, by: str
) -> None:
    with serving(clean, tmp_path / "log", by=by) as web:
        real.until(lambda: "Running on" in web.log.read_text())
    assert web.log.read_text().count("Running on") == 1
