"""The commands for schedules, as a person or a script meets them."""

import json
import re

import pytest

from quart_app import schedules
from quart_app.models import JobState
from tests.book import ADD
from tests.conftest import Place
from tests.ledger import Ledger
from tests.test_cli import invoke, quart


def run(place: Place, *words: str) -> tuple[int, str, str]:
    return invoke(place, "schedules", *words)


def make(place: Place, *words: str, name: str = "mine") -> str:
    rule = words or ("--interval", "3600")
    code, out, err = run(place, "create", name, ADD, "--kwargs", '{"left": 1}', *rule)
    assert (code, err) == (0, "")
    return out


def test_a_schedule_is_made_and_listed_with_its_next_time(clean: Place) -> None:
    out = make(clean, "--cron", "30 4 * * *", "--timezone", "Europe/Berlin")
    assert re.search(r"'mine' is made; next: \d{4}-\d\d-\d\d 04:30:00 Europe/Berlin", out)
    make(clean, name="other")
    header, *listed = run(clean, "list")[1].splitlines()
    assert header.split() == ["name", "rule", "next", "task"]
    assert [line.split()[0] for line in listed] == ["mine", "other"]
    assert [line.split()[-1] for line in listed] == [ADD, ADD]
    assert "30 4 * * *" in listed[0]
    assert "every 3600 s" in listed[1]


def test_one_in_a_zone_that_this_machine_does_not_know_is_listed_in_utc(clean: Place) -> None:
    make(clean, "--cron", "30 4 * * *", "--timezone", "Europe/Berlin")
    with clean.database.session() as session:
        schedules.named(session, "mine").timezone = "Not/There"
    assert " UTC " in run(clean, "list")[1].splitlines()[1]
    assert (
        "in the time zone Not/There, which this machine does not know"
        in run(clean, "next", "mine")[2]
    )


def test_one_is_shown_with_all_that_it_is(clean: Place) -> None:
    ends = ("--ends-at", "2040-01-01T09:00:00+01:00")
    make(clean, "--interval", "2.5", "--missed", "all", "--queue", "q", *ends)
    facts = shown(clean, "mine")
    assert json.loads(facts["kwargs"]) == {"left": 1}
    assert (facts["rule"], facts["missed"], facts["source"]) == ("every 2.5 s", "all", "api")
    assert (facts["queue"], facts["starts"]) == ("q", "-")
    assert facts["ends"].startswith("2040-01-01 08:00:00")


def test_the_next_times_mark_those_that_a_clock_change_moved(clean: Place) -> None:
    rule = ("--cron", "30 2 * * *", "--timezone", "Europe/Berlin")
    make(clean, *rule, "--starts-at", "2094-03-27T00:00:00+01:00")
    assert run(clean, "next", "mine", "--count", "3")[1].splitlines() == [
        "2094-03-27 02:30:00+01:00", "2094-03-28 03:00:00+02:00 *", "2094-03-29 02:30:00+02:00",
    ]  # fmt: skip


def test_what_is_given_of_one_is_changed_and_the_rest_stays(clean: Place) -> None:
    make(clean, "--interval", "60", "--queue", "q", "--ends-at", "2999-01-01T00:00:00Z")
    before = shown(clean, "mine")
    out = run(clean, "change", "mine", "--name", "new", "--cron", "@daily", "--timezone", "UTC")
    assert re.fullmatch(r"Schedule 'new' is changed; next: \S+ 00:00:00 UTC\.\n", out[1])
    after = shown(clean, "new")
    expected = {"rule": "@daily", "timezone": "UTC", "next": after["next"]}
    assert after == before | expected
    run(clean, "change", "new", "--interval", "5", "--kwargs", '{"left": 2}')
    assert shown(clean, "new").items() >= {"rule": "every 5 s", "kwargs": '{"left": 2}'}.items()


def test_a_change_may_clear_what_may_be_empty(still: Ledger, clean: Place) -> None:
    make(clean, "--interval", "60", "--queue", "q", "--ends-at", "2001-01-01T00:00:00Z")
    assert shown(clean, "mine")["next"] == "has ended"
    assert run(clean, "change", "mine", "--clear", "ends-at", "--clear", "queue")[0] == 0
    assert shown(clean, "mine")["next"] != "has ended"
    assert still.within(lambda s: schedules.named(s, "mine").queue) is None


def shown(place: Place, name: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in run(place, "show", name)[1].splitlines())


def test_one_is_paused_and_resumed(clean: Place) -> None:
    make(clean)
    assert "is paused" in run(clean, "pause", "mine")[1]
    assert "paused" in run(clean, "list")[1]
    assert "next: 20" in run(clean, "resume", "mine")[1]


def test_a_run_shows_the_id_of_a_job_that_runs(
    ledger: Ledger, clean: Place, worker: object
) -> None:
    make(clean)
    code, out, err = quart(clean.env, "schedules", "run", "mine")
    assert (code, err) == (0, "")
    assert ledger.ended(out.strip()).state is JobState.SUCCEEDED


def test_a_deleted_one_is_gone(clean: Place) -> None:
    make(clean)
    assert run(clean, "delete", "mine") == (0, "Schedule 'mine' is deleted.\n", "")
    assert run(clean, "list") == (0, "", "")


@pytest.mark.parametrize("word", ["show", "next", "pause", "resume", "run", "delete"])
def test_an_unknown_name_is_one_line(clean: Place, word: str) -> None:
    expected = "Error: There is no schedule named 'no such'.\n"
    assert run(clean, word, "no such") == (1, "", expected)


@pytest.mark.parametrize("words", [["delete", "given"], ["change", "given", "--cron", "@daily"]])
def test_one_of_settings_is_neither_changed_nor_deleted(
    still: Ledger, clean: Place, words: list[str]
) -> None:
    entry = {"given": {"task": ADD, "args": [1], "schedule": 60}}
    still.within(lambda s: schedules.adopt_settings(s, entry, "UTC"))
    code, out, err = run(clean, *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "CELERY_BEAT_SCHEDULE" in err


WRONG = [
    (["--cron", "0 0 31 2 *"], "cron: "), (["--cron", "@daily", "--interval", "5"], "interval: "),
    (["--queue", "q"], "cron: "), (["--interval", "0"], "interval: "),
    (["--interval", "x"], "'--interval'"), (["--interval", "5", "--args", "{}"], "'--args'"),
    (["--interval", "5", "--kwargs", "{"], "'--kwargs'"), (["--missed", "x"], "'--missed'"),
    (["--interval", "5", "--starts-at", "soon"], "'--starts-at'"),
    (["--interval", "5", "--ends-at", "2030-01-01T00:00:00"], "ends_at: "),
    (["--interval", "5", "--timezone", "Moon/Base"], "timezone: "),
    (["--interval", "5", "--kwargs", '{"left": "x"}'], "kwargs.left: "),
]  # fmt: skip


def test_what_makes_no_sense_is_named_and_nothing_is_made(clean: Place) -> None:
    for words, named in WRONG:
        given = [] if "--kwargs" in words else ["--kwargs", '{"left": 1}']
        code, _, err = run(clean, "create", "mine", ADD, *given, *words)
        assert code in (1, 2), words
        assert named in err.splitlines()[-1], words
    assert run(clean, "list") == (0, "", "")


def test_a_senseless_change_is_named_and_nothing_is_changed(clean: Place) -> None:
    make(clean)
    make(clean, name="taken")
    before = shown(clean, "mine")
    wrong = [*WRONG[:2], *WRONG[3:], ([], "what is to change"), (["--name", "taken"], "taken")]
    for words, named in wrong:
        code, _, err = run(clean, "change", "mine", *words)
        assert code in (1, 2), words
        assert named in err.splitlines()[-1], words
    assert shown(clean, "mine") == before
