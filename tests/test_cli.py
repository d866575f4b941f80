"""The commands as a person or a script meets them: what they print, where, and how they exit."""

import getpass
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from quart import Quart

from quart_app import audit, tokens
from quart_app.db import Database
from tests import real
from tests.conftest import Place
from tests.test_health import ALL as ALL_PARTS
from tests.test_health import manned

__all__ = ["manned"]

COMMANDS = [
    ["migrate"],
    ["tokens", "list"],
    ["tokens", "create", "x"],
    ["up", "--bind", "127.0.0.1:0"],
]
# What Windows has not; what others import for themselves is imported before it is taken away.
WINDOWS = """
import asyncio, billiard.pool, celery.apps.worker, hypercorn.asyncio, importlib, os, quart, redis
import signal, subprocess, sys
for name in ("fcntl", "termios", "pty", "tty", "pwd", "grp", "resource"):
    sys.modules[name] = None
for name in ("SIGKILL", "SIGHUP", "SIGCHLD"):
    delattr(signal, name)
for name in ("fork", "killpg", "getuid", "setsid"):
    delattr(os, name)
sys.platform = "win32"
asgi = importlib.import_module("asgi")
importlib.import_module("tasks.celery")
importlib.import_module("tasks.beat")
asgi.app.cli.main(["up"])
"""


def quart(place: dict[str, str], *words: str) -> tuple[int, str, str]:
    argv = real.python("quart", "--app", "asgi", *words)
    return run(argv, place)


def run(argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    done = subprocess.run(
        argv, env=real.environment(env), cwd=real.ROOT,
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def invoke(place: Place, *words: str) -> tuple[int, str, str]:
    """The same in this process, which is quicker."""
    app = place.app()
    result = app.test_cli_runner().invoke(args=words, prog_name="quart")
    return result.exit_code, result.stdout, result.stderr


def test_a_new_token_stands_alone_on_standard_output(clean: Place) -> None:
    code, out, err = quart(clean.env, "tokens", "create", "ci", "--role", "viewer")
    assert code == 0
    assert out.startswith("qm_")
    assert out.count("\n") == 1
    assert "'ci' with the role viewer" in err
    assert out.strip() not in err


def test_the_token_is_the_one_that_signs_in(clean: Place) -> None:
    secret = invoke(clean, "tokens", "create", "ci", "--role", "admin")[1].strip()
    with clean.database.session() as session:
        token = tokens.identify(session, secret)
    assert token is not None
    assert (token.name, str(token.role)) == ("ci", "admin")


def test_the_list_names_tokens_and_shows_none(clean: Place) -> None:
    secret = invoke(clean, "tokens", "create", "ci")[1].strip()
    code, out, _ = invoke(clean, "tokens", "list")
    assert (code, out.split()[:2]) == (0, ["ci", "operator"])
    assert secret not in out


def test_the_list_says_what_each_token_is_for_and_until_when(clean: Place) -> None:
    limits = ("--expires", "30d", "--task", "tasks.*", "--task", "my.task")
    assert invoke(clean, "tokens", "create", "ci", "--role", "admin", *limits)[0] == 0
    invoke(clean, "tokens", "create", "ops", "--expires", "2999-01-01T08:00:00+08:00")
    ci, ops = invoke(clean, "tokens", "list")[1].splitlines()
    assert re.search(r"ci +admin +made 20.* UTC  expires 20.* UTC  used never +tasks tasks", ci)
    assert ci.endswith("tasks tasks.* my.task")
    assert "expires 2999-01-01 00:00 UTC" in ops
    assert ops.endswith("tasks all")


@pytest.mark.parametrize("end", ["0d", "-1d", "5", "soon", "2030-01-01", "1970-01-01T00:00:00Z"])
def test_an_end_that_makes_no_sense_is_named_and_no_token_is_made(clean: Place, end: str) -> None:
    code, out, err = invoke(clean, "tokens", "create", "ci", "--expires", end)
    assert code in (1, 2)
    assert (out, "expires" in err.splitlines()[-1]) == ("", True)
    assert invoke(clean, "tokens", "list")[1] == ""


def test_what_is_done_at_the_command_line_is_told_of_its_user(clean: Place) -> None:
    invoke(clean, "tokens", "create", "ci")
    rule = ("--interval", "60", "--args", "[1]")
    invoke(clean, "schedules", "create", "mine", "tests.sample_tasks.add", *rule)
    with clean.database.session() as session:
        told = audit.search(session, exact={})
        assert [entry.action for entry in told] == ["schedule.create", "token.create"]
        assert {(e.actor, e.via) for e in told} == {(f"cli:{getpass.getuser()}", "cli")}


def test_a_revoked_token_is_gone_and_its_name_free(clean: Place) -> None:
    invoke(clean, "tokens", "create", "ci")
    assert invoke(clean, "tokens", "revoke", "ci")[0] == 0
    assert invoke(clean, "tokens", "list")[1] == ""
    assert invoke(clean, "tokens", "create", "ci")[0] == 0


def test_a_name_that_is_taken_is_one_line_on_standard_error(clean: Place) -> None:
    invoke(clean, "tokens", "create", "ci")
    code, out, err = invoke(clean, "tokens", "create", "ci")
    assert (code, out, err) == (1, "", "Error: There is a token named 'ci' already.\n")


def test_an_unknown_name_is_one_line_on_standard_error(clean: Place) -> None:
    code, out, err = invoke(clean, "tokens", "revoke", "ci")
    assert (code, out, err) == (1, "", "Error: There is no token named 'ci'.\n")


def test_an_unknown_role_names_the_roles(clean: Place) -> None:
    code, _, err = invoke(clean, "tokens", "create", "ci", "--role", "king")
    assert code == 2
    assert "'viewer', 'operator', 'admin'" in err


NOT_UTF_8 = [["tokens", "revoke", "\udcff"], ["schedules", "show", "\udcff"],
             ["jobs", "show", "\udcff"], ["jobs", "list", "--cursor", "5.\udcff"]]  # fmt: skip


@pytest.mark.parametrize("words", NOT_UTF_8, ids=" ".join)
def test_what_is_no_text_is_one_line_on_standard_error(clean: Place, words: list[str]) -> None:
    code, out, err = invoke(clean, *words)
    assert (code, out, err.splitlines()[-1][:6]) == (code or 1, "", "Error:")


def test_where_nothing_can_listen_serve_ends_with_one_line(clean: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for words in (
            ["--bind", "nonsense"],
            ["--bind", "127.0.0.1:99999"],
            ["--bind", f"127.0.0.1:{taken.getsockname()[1]}"],
            ["--fd", "77"],
        ):
            code, out, err = quart(clean.env, "serve", *words)
            assert (code, out, err.count("\n")) == (1, "", 1), err
            assert err.startswith(f"Error: {' '.join(words)}: ")


def test_migrate_says_where_the_database_is(place: Place) -> None:
    code, out, err = invoke(place, "migrate")
    assert (code, err) == (0, "")
    assert out.startswith("The database is at 0")


def test_on_a_fresh_folder_migrate_makes_the_database(tmp_path: Path) -> None:
    var = tmp_path / "a b" / "var"
    code, out, err = quart({"VAR_DIR": str(var)}, "migrate")
    assert (code, out.count("\n"), err) == (0, 1, "")
    assert (var / "quartermaster.sqlite3").exists()
    database = Database(f"sqlite:///{var}/quartermaster.sqlite3")
    with database.session() as session:
        assert [entry.action for entry in audit.search(session, exact={})] == ["database.migrate"]
    database.dispose()
    assert (var / "secret_key").stat().st_mode & 0o777 == 0o600


def test_on_a_fresh_folder_a_token_can_be_made_at_once(tmp_path: Path) -> None:
    code, out, _ = quart({"VAR_DIR": str(tmp_path / "var")}, "tokens", "create", "ci")
    assert (code, out[:3]) == (0, "qm_")


def test_on_a_fresh_folder_doctor_tells_each_remedy(tmp_path: Path) -> None:
    code, out, err = quart({"VAR_DIR": str(tmp_path / "var")}, "doctor")
    assert (code, err) == (1, "")
    faults = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert faults["settings"] == faults["database"] == "ok"
    assert "run `python3 run.py migrate`" in faults["schema"]
    assert "start `python3 run.py`" in faults["broker"]
    assert faults.keys() == {"settings", *ALL_PARTS}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_with_the_database_away_a_command_ends_with_one_line(
    words: list[str], tmp_path: Path
) -> None:
    away = {"DATABASE_URL": "mysql://me:s3cret@127.0.0.1:1/x", "SECRET_KEY": "x"}
    code, out, err = quart(away | {"VAR_DIR": str(tmp_path)}, *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: The database does not answer: ")
    assert "s3cret" not in err


def test_of_a_broker_that_is_away_doctor_tells_the_drivers_words(tmp_path: Path) -> None:
    away = {"REDIS_URL": "redis://me:s3cret@127.0.0.1:1/0", "VAR_DIR": str(tmp_path)}
    code, out, _ = quart(away, "doctor")
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("broker")]
    assert "127.0.0.1:1. Connection refused" in line
    assert "REDIS_URL" in line
    assert "s3cret" not in out


def test_with_the_database_away_doctor_says_so(tmp_path: Path) -> None:
    away = {"DATABASE_URL": "mysql://me:s3cret@127.0.0.1:1/x", "SECRET_KEY": "x"}
    code, out, err = quart(away | {"VAR_DIR": str(tmp_path)}, "doctor")
    assert (code, err) == (1, "")
    assert "database  does not answer (OperationalError): (2003, \"Can't connect to" in out
    assert "DATABASE_URL" in out
    assert "s3cret" not in out


def test_doctor_names_what_looks_like_a_setting_and_is_none(tmp_path: Path) -> None:
    odd = {"CELERY_TIMZONE": "UTC", "CELERY_XYZZY": "1", "SMS_PROVDER": "console"}
    known = {"CELERY_TASK_ALWAYS_EAGER": "false", "CELERY_WORKER_POOL": "solo"}
    known |= {"TEST_DATABASE_URL": "x", "MY_SECRET_KEY": "y"}
    code, out, err = quart(odd | known | {"VAR_DIR": str(tmp_path / "var")}, "doctor")
    assert (code, err) == (1, "")
    said = "nothing reads CELERY_TIMZONE (is CELERY_TIMEZONE meant?), CELERY_XYZZY,"
    assert out.startswith(f"settings  {said} SMS_PROVDER (is SMS_PROVIDER meant?): correct")


@pytest.mark.parametrize(
    "own",
    [
        {"CELERY_IMPORTS": "tests.sample_tasks"},
        {"CELERY_BEAT_SCHEDULE": '{"n": {"task": "tasks.scheduler.send_sms", "schedule": 60}}'},
    ],
    ids=["modules", "schedules"],
)
def test_doctor_says_when_nothing_deletes_old_jobs(own: dict[str, str], tmp_path: Path) -> None:
    _, out, err = quart(own | {"VAR_DIR": str(tmp_path / "var")}, "doctor")
    assert err == ""
    assert out.startswith("settings  none of them has old jobs deleted: name tasks.scheduler in ")


def test_such_a_name_alone_is_no_reason_to_fail(
    clean: Place, manned: Quart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_TIMZONE", "UTC")
    code, out, _ = invoke(clean, "doctor")
    assert (code, "is CELERY_TIMEZONE meant?" in out) == (0, True)


def test_every_value_of_an_option_has_a_name_to_read(clean: Place) -> None:
    app = clean.app()
    names = {
        option.make_metavar(click.Context(command))
        for group in app.cli.commands.values()
        for command in getattr(group, "commands", {"": group}).values()
        for option in command.params
    }
    assert [name for name in names if name.startswith("_") or name in ("MOMENT", "READ")] == []


def test_the_help_of_run_py_lists_every_command(clean: Place) -> None:
    said = run([sys.executable, "run.py", "--help"], {})[1]
    listed = {line.split()[0] for line in said.splitlines() if line.startswith("  ")}
    ours = clean.app().cli.commands.keys() - {"schema"}  # which Quart-Schema brings
    assert listed == ours | {"install", "chaos", "bench", "test"}


def test_web_and_worker_load_without_what_windows_lacks_and_up_says_so(tmp_path: Path) -> None:
    code, _, err = run([sys.executable, "-c", WINDOWS], {"VAR_DIR": str(tmp_path)})
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("Error: up needs Linux or macOS")
