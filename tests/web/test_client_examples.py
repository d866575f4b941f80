"""The clients of examples/clients, really run, before a web that is restarted under them."""

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from quart_app import db, jobs
from tests import real
from tests.conftest import Place
from tests.ledger import Ledger
from tests.test_cli import run
from tests.web.conftest import serving
from tests.web.following import COUNT, Frames, Served, on_one_database, stored
from tests.web.test_browser import browser, complaints

__all__ = ["browser"]

CLIENTS = real.ROOT / "examples" / "clients"
NOBODY = "00000000-0000-7000-8000-000000000000"
ADD = "tests.sample_tasks.add"


def command(name: str, *words: str) -> list[str]:
    return [*real.python(name)[:1], "-W", "error", str(CLIENTS / f"{name}.py"), *words]


def called(served: Served, secret: str, name: str, *words: str) -> tuple[int, str, str]:
    return run(command(name, *words, "--url", served.address), {"TOKEN": secret})


def frames(text: str) -> Frames:
    """What was printed by now: a last line may be half written."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def seqs(told: Frames, job_id: str) -> list[int]:
    return [frame["seq"] for frame in stored(told) if frame["job"] == job_id]


class Site:
    """A web process on one port, which a test ends and starts again under a client."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder, self.port = place, folder, real.free_port()
        self.log = folder / "client.log"
        self._running = ExitStack()

    def start(self) -> Served:
        web = serving(self.place, self.folder / "web.log", port=self.port)
        self.served = self._running.enter_context(web)
        return self.served

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        os.kill(self.served.pid, by)
        self.served.process.wait(30)
        self._running.close()

    @property
    def told(self) -> Frames:
        """What its client has printed."""
        return frames(self.log.read_text())

    def client(self, secret: str, name: str, *words: str) -> Any:
        argv = command(name, *words, "--url", self.served.address)
        return real.process(argv, {"TOKEN": secret}, self.log)


@pytest.fixture
def site(clean: Place, worker: Path, tmp_path: Path) -> Iterator[Site]:
    site = Site(clean, tmp_path)
    site.start()
    yield site
    site.end()


@pytest.fixture
def own_site(served: Served, secret: str, tmp_path: Path) -> Iterator[str]:
    """The address of the site that has a page of its own."""
    port, log = real.free_port(), tmp_path / "page.log"
    argv = command("own_page", "--port", str(port), "--url", served.address)
    with real.process(argv, {"TOKEN": secret}, log):
        real.until(lambda: real.listens(port))
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("name", ["over_http", "over_websocket", "own_page"])
def test_each_tells_how_it_is_run(name: str) -> None:
    code, out, err = run(command(name, "--help"), {})
    assert (code, err) == (0, "")
    assert "export TOKEN=qm_" in out
    assert f"python {name}.py" in out


@pytest.mark.parametrize(
    "words", [["over_http", ADD], ["over_websocket", NOBODY], ["own_page", "--port", "0"]]
)
def test_without_a_token_each_says_so_and_ends(words: list[str]) -> None:
    assert run(command(*words), {}) == (1, "", "There is no token: export TOKEN=qm_…\n")


def test_a_job_is_submitted_and_followed_to_its_result(
    served: Served, secret: str, worker: Path
) -> None:
    given = ("--kwargs", '{"steps": 3}')
    code, out, _ = called(served, secret, "over_http", COUNT, *given)
    last = frames(out)[-1]
    assert (code, last["state"], last["result"]) == (0, "succeeded", {"steps": 3})
    assert seqs(frames(out), last["job"]) == list(range(1, 7))


def test_one_that_fails_says_so_by_its_exit(served: Served, secret: str, worker: Path) -> None:
    given = ("--kwargs", '{"reason": "no such luck"}')
    code, out, _ = called(served, secret, "over_http", "tests.sample_tasks.fail", *given)
    assert (code, frames(out)[-1]["error"]) == (1, "ValueError: no such luck")


def test_a_batch_shows_the_ids_of_all_its_jobs(served: Served, secret: str, still: Ledger) -> None:
    given = ("--kwargs", '{"left": 1}', "--times", "30")
    code, out, err = called(served, secret, "over_http", ADD, *given)
    assert (code, err) == (0, "")
    assert out.split() == [job.id for job in still.jobs()]
    assert len(out.split()) == 30


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no.such.task"], "There is no task 'no.such.task'; GET /api/tasks lists them.\n"),
        ([ADD], "kwargs.left: field required\n"),
        ([ADD, "--times", "3"], "jobs.0.kwargs.left: field required\n"),
    ],
)
def test_what_makes_no_sense_ends_with_one_line(
    served: Served, secret: str, words: list[str], said: str
) -> None:
    assert called(served, secret, "over_http", *words) == (1, "", said)


def test_a_wrong_token_is_no_reason_to_come_back(served: Served, still: Ledger) -> None:
    said = "This token is not valid (any more).\n"
    assert called(served, "wrong", "over_http", ADD) == (1, "", said)
    refused = (1, "", "4401 no or bad token\n")
    assert called(served, "wrong", "over_websocket", NOBODY) == refused
    assert called(served, "wrong", "over_websocket", NOBODY, "another") == refused


def test_an_address_that_is_none_of_ours_is_no_reason_to_come_back(
    served: Served, secret: str
) -> None:
    elsewhere = f"{served.address}/no/such"
    for ids in ([NOBODY], [NOBODY, "another"]):
        words = command("over_websocket", *ids, "--url", elsewhere)
        code, out, err = run(words, {"TOKEN": secret})
        assert (code, out, err) == (1, "", "404 \n")


def test_an_unknown_job_ends_it_where_it_is_the_only_one(
    served: Served, secret: str, still: Ledger
) -> None:
    assert called(served, secret, "over_websocket", NOBODY) == (
        1,
        "",
        "4404 there is no such job\n",
    )
    code, out, err = called(served, secret, "over_websocket", NOBODY, "another")
    assert (code, err) == (0, "")
    assert {frame["job"] for frame in frames(out)} == {NOBODY, "another"}
    assert {frame["type"] for frame in frames(out)} == {"error"}


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("count", [1, 3])
@on_one_database
def test_a_restart_of_the_web_costs_no_event_and_repeats_none(
    site: Site, secret: str, ledger: Ledger, count: int, by: signal.Signals
) -> None:
    ids = [ledger.submit("count", 30, 0.1, delay=3600) for _ in range(count)]
    with site.client(secret, "over_websocket", *ids) as client:
        real.until(lambda: {frame["job"] for frame in site.told} == {*ids})
        ledger.change_all(available_at=db.now())
        real.until(lambda: all(len(seqs(site.told, id_)) > 5 for id_ in ids[:2]))
        site.end(by)
        site.start()
        assert client.wait(60) == 0
    assert [seqs(site.told, id_) for id_ in ids] == [list(range(1, 35))] * count
    assert "Coming back" in site.log.read_text()


@on_one_database
def test_by_http_too(site: Site, secret: str, ledger: Ledger) -> None:
    given = ("--kwargs", '{"steps": 30, "pause": 0.1}')
    with site.client(secret, "over_http", COUNT, *given) as client:
        real.until(lambda: len(stored(site.told)) > 5)
        site.end(signal.SIGKILL)
        site.start()
        assert client.wait(60) == 0
    (job,) = ledger.jobs()
    assert seqs(site.told, job.id) == list(range(1, 34))


@on_one_database
def test_a_job_is_submitted_though_the_web_comes_up_late(
    site: Site, secret: str, ledger: Ledger
) -> None:
    site.end()
    with site.client(secret, "over_http", ADD, "--kwargs", '{"left": 1}') as client:
        real.until(lambda: "Trying again" in site.log.read_text())
        site.start()
        assert client.wait(60) == 0
    assert [job.result for job in ledger.jobs()] == [2]


@pytest.mark.parametrize("others", [0, 1])
def test_a_job_that_was_retried_is_followed_beyond_its_first_end(
    served: Served, secret: str, ledger: Ledger, worker: Path, others: int
) -> None:
    retried = ledger.submit("add", 1, delay=3600)
    ledger.cancel(retried)
    ledger.within(lambda session: jobs.retry(session, retried))
    ids = [retried, *(ledger.submit("add", 1) for _ in range(others))]
    assert [ledger.ended(id_).result for id_ in ids] == [2] * len(ids)
    code, out, _ = called(served, secret, "over_websocket", *ids)
    assert code == 0
    assert [frame["state"] for frame in frames(out) if frame["job"] == retried] == [
        "scheduled", "cancelled", "queued", "running", "succeeded",
    ]  # fmt: skip


@on_one_database
async def test_a_page_of_ones_own_shows_a_job_of_its_visitor(
    own_site: str, worker: Path, browser: Any
) -> None:
    page = await browser.new_page()
    said = complaints(page)
    await page.goto(own_site)
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#state")).to_have_text("succeeded", timeout=20_000)
    told = await page.locator("#lines li").all_text_contents()
    assert [line.split()[0] for line in told][:2] == ["queued", "running"]
    assert said == []


@on_one_database
def test_a_page_of_ones_own_shows_nobody_the_jobs_of_others(own_site: str, still: Ledger) -> None:
    job_id = still.submit("add", 1)
    assert httpx.get(f"{own_site}/greetings/{job_id}/events").status_code == 404
    wrong = httpx.post(f"{own_site}/greetings", data={"text": "\0"})
    assert (wrong.status_code, "kwargs.text" in wrong.json()["detail"]) == (422, True)
    assert httpx.post(f"{own_site}/greetings").status_code == 400
    assert [job.id for job in still.jobs()] == [job_id]


def commands() -> list[str]:
    """What docs/clients.md has one type, the token and what is installed apart."""
    page = (real.ROOT / "docs" / "clients.md").read_text()
    return re.findall(
        r"```shell\n(?!export TOKEN|python3 run.py install )(.*?)```", page, re.DOTALL
    )


@pytest.mark.parametrize("block", commands())
@pytest.mark.usefixtures("worker")
@on_one_database
def test_what_the_page_on_clients_has_one_type_works(
    served: Served, secret: str, clean: Place, tmp_path: Path, block: str
) -> None:
    here = f"{shlex.quote(sys.executable)} -m quart --app asgi"
    block = block.replace("python3 run.py", here).replace(
        ".venv/bin/python examples", "$PYTHON examples"
    )
    block = re.sub(r"(over_\w+\.py)", rf"\1 --url {served.address}", block)
    env = clean.env | {"TOKEN": secret, "PYTHON": sys.executable}
    log = tmp_path / "log"
    with real.process(["bash", "-euc", block], env, log) as process:
        assert process.wait(100) == 0, log.read_text()
