"""The commands for jobs, as a person or a script meets them."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from quart_app.models import JobState
from tests import real
from tests.book import ADD
from tests.conftest import Place
from tests.ledger import Ledger
from tests.test_cli import invoke, quart

NOBODY = "00000000-0000-7000-8000-000000000000"
COUNT = "tests.sample_tasks.count"
ENDS = [
    ([ADD, "--arg", "left=1"], 0, "succeeded"),
    (["tests.sample_tasks.fail", "--arg", "reason=no luck"], 1, "failed"),
]


def run(place: Place, *words: str) -> tuple[int, str, str]:
    return invoke(place, "jobs", *words)


def made(place: Place, *words: str) -> str:
    code, out, err = run(place, "submit", *words)
    assert (code, err) == (0, "")
    return out.removesuffix("\n")


class Terminal:
    """A command that runs on a terminal of its own, and all that it has shown there."""

    def __init__(self, child: subprocess.Popen[bytes], screen: int) -> None:
        self.child, self._screen, self.text = child, screen, ""

    def shows(self, text: str) -> bool:
        self.read()
        return text in self.text

    def read(self) -> None:
        with suppress(OSError):  # the other side has been closed
            os.set_blocking(self._screen, False)
            self.text += os.read(self._screen, 65536).decode(errors="replace")

    def ended(self) -> int:
        def over() -> bool:
            self.read()
            return self.child.poll() is not None

        real.until(over)
        self.read()
        return self.child.returncode


@contextmanager
def terminal(place: Place, *words: str) -> Iterator[Terminal]:
    screen, its = pty.openpty()
    argv = real.python("quart", "--app", "asgi", "jobs", *words)
    env = real.environment(place.env) | {"TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen(
        argv, env=env, cwd=real.ROOT, stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    try:
        yield Terminal(child, screen)
    finally:
        real.end(child)
        os.close(screen)


def test_a_submitted_job_shows_its_id_alone_and_runs(
    ledger: Ledger, clean: Place, worker: object
) -> None:
    code, out, err = quart(clean.env, "jobs", "submit", ADD, "--arg", "left=1")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert ledger.ended(out.strip()).result == 2


def test_arguments_are_text_or_json_and_become_what_the_signature_says(
    clean: Place, still: Ledger
) -> None:
    words = ("--kwargs", '{"right": 2}', "--arg", "left=40")
    assert still.job(made(clean, ADD, *words)).kwargs == {"left": 40, "right": 2}
    text = ("--arg", "text=a=1", "--arg", "when=2030-01-01T00:00:00Z")
    kwargs = still.job(made(clean, "tests.sample_tasks.repeat", *text)).kwargs
    assert kwargs == {"text": "a=1", "when": "2030-01-01T00:00:00Z"}


def test_each_option_reaches_the_job(clean: Place, still: Ledger) -> None:
    words = ("--queue", "q", "--priority", "7", "--eta", "2094-01-01T08:00:00+08:00")
    job = still.job(made(clean, ADD, "--arg", "left=1", *words, "--unique-key", "k"))
    assert (job.queue, job.priority, job.unique_key) == ("q", 7, "k")
    assert (job.state, str(job.eta)) == (JobState.SCHEDULED, "2094-01-01 00:00:00+00:00")
    later = still.job(made(clean, ADD, "--arg", "left=1", "--delay", "60"))
    assert (later.available_at - later.accepted_at).total_seconds() == 60


def test_a_live_job_with_the_key_is_shown_instead(clean: Place, still: Ledger) -> None:
    words = (ADD, "--arg", "left=1", "--unique-key", "k")
    first = made(clean, *words)
    said = "A live job has this unique key; it is:\n"
    assert run(clean, "submit", *words) == (0, f"{first}\n", said)


@pytest.mark.parametrize(("words", "exit_", "end"), ENDS)
@pytest.mark.usefixtures("ledger", "worker")
def test_a_followed_job_ends_the_command_as_it_ends(
    clean: Place, words: list[str], exit_: int, end: str
) -> None:
    code, out, err = run(clean, "submit", *words, "--follow")
    assert (code, out.count("\n")) == (exit_, 1)
    moments = [line.split() for line in err.splitlines() if not line.startswith(" ")]
    assert [state for _, _, state, *_ in moments] == ["queued", "running", end]
    assert ("Traceback (most recent call last):" in err) == (end == "failed")
    assert run(clean, "follow", out.strip()) == (exit_, err, "")


def test_a_cancelled_one_ends_it_with_2(clean: Place, still: Ledger) -> None:
    job_id = still.submit("add", 1, delay=60)
    still.cancel(job_id)
    code, out, err = run(clean, "follow", job_id)
    assert (code, err) == (2, "")
    assert "cancelled" in out.splitlines()[-1]


def test_lines_and_progress_are_shown_where_there_is_no_terminal(
    ledger: Ledger, clean: Place, worker: object
) -> None:
    words = ("--arg", "steps=3", "--arg", "pause=0.1", "--follow")
    code, _, err = run(clean, "submit", COUNT, *words)
    assert code == 0
    assert any(line.endswith("progress   3/3 step 3") for line in err.splitlines())
    assert err.splitlines()[-1].endswith('succeeded  {"steps": 3}')
    assert "\x1b" not in err


def test_a_result_is_shown_as_json_and_not_obeyed(
    ledger: Ledger, clean: Place, worker: object
) -> None:
    job_id = ledger.submit("repeat", "Größe \x9b31m")
    ledger.ended(job_id)
    code, out, err = run(clean, "follow", job_id)
    assert (code, err) == (0, "")
    assert "\x9b" not in out
    assert "Größe \\x9b31m" in out.splitlines()[-1]


def test_a_terminal_shows_a_bar_and_obeys_no_task(
    ledger: Ledger, clean: Place, worker: object
) -> None:
    job_id = ledger.submit("count", 15, 0.1)
    with terminal(clean, "follow", job_id) as shown:
        real.until(lambda: shown.shows("━"))
        assert shown.ended() == 0
    assert all(f"line {number}" in shown.text for number in range(1, 16))
    assert 'succeeded  {"steps": 15}' in shown.text


def test_what_a_task_says_is_shown_and_not_obeyed(
    ledger: Ledger, clean: Place, worker: object
) -> None:
    job_id = ledger.submit("fail", "\x1b[31m[bold]red")
    ledger.ended(job_id)
    with terminal(clean, "follow", job_id) as shown:
        assert shown.ended() == 1
    assert "ValueError: \\x1b[31m[bold]red" in shown.text


def test_ctrl_c_stops_following_alone(ledger: Ledger, clean: Place, worker: Path) -> None:
    job_id = ledger.submit("count", 30, 0.1)
    with terminal(clean, "follow", job_id) as shown:
        real.until(lambda: shown.shows("line 2"))
        os.killpg(shown.child.pid, signal.SIGINT)
        assert shown.ended() == 130
    assert f"The job goes on; to see it again: jobs follow {job_id}" in shown.text
    assert "Traceback" not in shown.text
    assert ledger.ended(job_id).state is JobState.SUCCEEDED


def test_one_that_does_not_start_says_why(clean: Place, still: Ledger) -> None:
    job_id = made(clean, ADD, "--arg", "left=1", "--queue", "nobodys")
    with terminal(clean, "follow", job_id) as shown:
        real.until(
            lambda: shown.shows("waits      No worker that is online consumes queue 'nobodys'")
        )


@pytest.mark.parametrize("places", ["mariadb"], indirect=True)
def test_a_job_is_followed_on_although_the_database_was_away(clean: Place, still: Ledger) -> None:
    job_id = made(clean, ADD, "--arg", "left=1")
    with terminal(clean, "follow", job_id) as shown:
        real.until(lambda: shown.shows("queued"))
        real.until(lambda: cut_off_others(clean) and shown.shows("does not answer just now"))
        assert run(clean, "cancel", job_id)[0] == 0
        assert shown.ended() == 2
    assert "Error" not in shown.text


def cut_off_others(place: Place) -> bool:
    """As a restart of the server does to whoever speaks to this database."""
    with place.database.session() as session:
        others = "db = DATABASE() AND id <> CONNECTION_ID() AND command = 'Sleep'"
        found = text(f"SELECT id FROM information_schema.processlist WHERE {others}")
        for id_ in session.scalars(found).all():
            with suppress(DBAPIError):  # it has gone by itself
                session.execute(text(f"KILL {id_}"))
    return True


def test_jobs_are_listed_by_what_they_are(clean: Place, still: Ledger) -> None:
    ids = [still.submit("add", number, queue="q") for number in range(3)]
    still.submit("repeat", "Größe 5", queue="other")
    still.cancel(ids[0])
    assert [line.split()[0] for line in run(clean, "list", "--queue", "q")[1].splitlines()] == [
        "id", *reversed(ids),
    ]  # fmt: skip
    filters = (
        ("--state", "cancelled"), ("--task", ADD, "--limit", "1"), ("--q", "größe"),
        ("--since", "2020-01-01T00:00:00Z", "--queue", "other"),
        ("--until", "2020-01-01T00:00:00Z"),
    )  # fmt: skip
    counts = [len(listed(clean, *words)["items"]) for words in filters]
    assert counts == [1, 1, 1, 1, 0]
    assert run(clean, "list", "--q", "nowhere") == (0, "", "No jobs.\n")


def listed(place: Place, *words: str) -> Any:
    code, out, err = run(place, "list", "--json", *words)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_list_goes_on_where_its_page_ended(clean: Place, still: Ledger) -> None:
    ids = [still.submit("add", number) for number in range(3)]
    first = listed(clean, "--limit", "2")
    assert f"--cursor {first['next']}\n" in run(clean, "list", "--limit", "2")[2]
    rest = listed(clean, "--limit", "2", "--cursor", first["next"])
    assert [job["id"] for job in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next"] is None


async def test_one_is_shown_as_the_api_has_it(clean: Place, client: Any) -> None:
    job = await (await client.post("/api/jobs", json={"task": ADD, "args": [1]})).get_json()
    code, out, err = quart(clean.env, "jobs", "show", job["id"], "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == await (await client.get(f"/api/jobs/{job['id']}")).get_json()
    items = (await (await client.get("/api/jobs")).get_json())["items"]
    assert json.loads(quart(clean.env, "jobs", "list", "--json")[1])["items"] == items


def test_one_is_shown_with_why_it_is_where_it_is(clean: Place, still: Ledger) -> None:
    job_id = still.submit("repeat", "\x1b[31mred", delay=60)
    facts = dict(line.split(maxsplit=1) for line in run(clean, "show", job_id)[1].splitlines())
    assert (facts["id"], facts["state"], facts["error"]) == (job_id, "scheduled", "-")
    assert json.loads(facts["args"]) == ["\x1b[31mred"]
    assert facts["why"].startswith("It waits for its time")


def test_a_waiting_job_is_cancelled_and_runs_again(clean: Place, still: Ledger) -> None:
    job_id = still.submit("add", 1)
    assert run(clean, "cancel", job_id) == (0, f"Job {job_id} is cancelled.\n", "")
    assert run(clean, "retry", job_id) == (0, f"Job {job_id} is queued again.\n", "")
    assert still.job(job_id).state is JobState.QUEUED


def test_a_running_job_is_asked_to_stop(
    ledger: Ledger, clean: Place, worker: object, tmp_path: Path
) -> None:
    job_id = ledger.submit("obey", str(tmp_path / "begun"))
    real.until((tmp_path / "begun").exists)
    assert run(clean, "cancel", job_id) == (0, f"Job {job_id} is asked to stop.\n", "")
    assert ledger.ended(job_id).state is JobState.CANCELLED


@pytest.mark.parametrize("word", ["show", "follow", "cancel", "retry"])
def test_an_unknown_id_is_one_line(clean: Place, word: str) -> None:
    assert run(clean, word, NOBODY) == (1, "", f"Error: There is no job {NOBODY}.\n")


def test_what_a_state_does_not_allow_is_one_line(clean: Place, still: Ledger) -> None:
    job_id = still.submit("add", 1)
    said = "Error: Only a failed or cancelled job can be retried; this one is queued.\n"
    assert run(clean, "retry", job_id) == (1, "", said)
    still.cancel(job_id)
    assert run(clean, "cancel", job_id) == (1, "", "Error: The job has ended already: cancelled.\n")


WRONG = [
    (["--arg", "left=x"], "kwargs.left: "), (["--arg", "left"], "'--arg'"),
    (["--arg", "left=1", "--arg", "left=2"], "'--arg'"), (["--kwargs", "[]"], "'--kwargs'"),
    (["--kwargs", '{"left": NaN}'], "kwargs.left: "), (["--kwargs", "{"], "'--kwargs'"),
    (["--kwargs", "[" * 100_000], "'--kwargs'"), (["--arg", "l=1"], "kwargs.l: unknown; "),
    (["--arg", "left=1", "--priority", "10"], "'--priority'"),
    (["--arg", "left=1", "--delay", "-1"], "delay: "),
    (["--arg", "left=1", "--delay", "nan"], "delay: "),
    (["--arg", "left=1", "--delay", "1", "--eta", "2030-01-01T00:00:00Z"], "delay: "),
    (["--arg", "left=1", "--eta", "soon"], "'--eta'"),
    (["--arg", "left=1", "--eta", "2030-01-01T00:00:00"], "eta: "),
    (["--arg", "left=1", "--queue", "a b"], "queue: "),
    (["--arg", "left=1", "--unique-key", "x" * 256], "unique_key: "),
    (["--arg", "left=1", "--unique-key", "\udc80"], "unique_key: "),
]  # fmt: skip
SENSELESS = [
    (["--state", "gone"], "'--state'"), (["--limit", "0"], "'--limit'"),
    (["--limit", "501"], "'--limit'"), (["--since", "2030-01-01T00:00:00"], "since: "),
    (["--until", "1"], "'--until'"), (["--q", "\udc80"], "'--q'"),
    (["--task", "\udc80"], "'--task'"),
]  # fmt: skip


def test_what_makes_no_sense_is_named_and_no_job_is_made(clean: Place, still: Ledger) -> None:
    for words, named in WRONG:
        code, out, err = run(clean, "submit", ADD, *words)
        assert (code in (1, 2), out, named in err.splitlines()[-1]) == (True, "", True), words
    assert still.jobs() == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("no.such", ""), ("tests.sample_tasks.ad", f" Did you mean '{ADD}'?")],
)
def test_an_unknown_task_is_told_with_the_modules_that_are_loaded(
    clean: Place, still: Ledger, name: str, hint: str
) -> None:
    loaded = real.TASKS.replace(",", ", ")
    said = f"There is no task '{name}'; loaded here: {loaded}; CELERY_IMPORTS names others.{hint}"
    assert run(clean, "submit", name)[::2] == (1, f"Error: {said}\n")
    assert still.jobs() == []


@pytest.mark.parametrize(("words", "named"), SENSELESS)
def test_a_filter_that_makes_no_sense_is_named(clean: Place, words: list[str], named: str) -> None:
    code, out, err = run(clean, "list", *words)
    assert (code in (1, 2), out) == (True, "")
    assert named in err.splitlines()[-1]


def test_help_tells_by_examples(clean: Place) -> None:
    assert "jobs submit tasks.scheduler.send_sms\n" in run(clean, "submit", "--help")[1]
    said = run(clean, "follow", "--help")[1]
    assert "exits 0 when the job has succeeded" in " ".join(said.split())
