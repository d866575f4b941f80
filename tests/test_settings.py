"""The settings, as a process of its own reads them."""

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.app import defaults
from celery.schedules import crontab

from quart_app.app import create_app
from tests import real


def read(env: Mapping[str, str], folder: Path = real.ROOT) -> dict[str, Any]:
    """What settings.py holds in a process with this environment and no other."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        return runpy.run_path(str(folder / "settings.py"))
    finally:
        os.environ.clear()
        os.environ.update(before)


def refusal(env: Mapping[str, str]) -> str:
    """What the process says as it ends, for want of settings it can use."""
    with pytest.raises(SystemExit) as ended:
        read(env)
    return str(ended.value.code)


def run(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.defpath, "PYTHONPATH": str(real.ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=given | env, cwd=real.ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def names_of_celery(source: str) -> set[str]:
    """The `CELERY_*` names that a module assigns."""
    assigned = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    found = {node.id for node in assigned if isinstance(node.ctx, ast.Store)}
    return {name for name in found if name.startswith("CELERY_")}


def test_every_celery_name_in_settings_is_one_that_celery_knows() -> None:
    known = dict(defaults.flatten(defaults.NAMESPACES))
    names = names_of_celery((real.ROOT / "settings.py").read_text())
    assert len(names) > 10
    assert {name for name in names if name.removeprefix("CELERY_").lower() not in known} == set()


def test_all_that_is_wrong_is_said_at_once_in_one_line_each() -> None:
    wrong = {
        "MAX_QUEUE_DEPTH": "many", "CELERY_TIMEZONE": "Mars/Base", "JOB_LEASE": "0",
        "DATABASE_URL": "postgresql://host/name", "CELERY_TASK_ROUTES": "{", "REDIS_URL": "x",
        "CELERY_BEAT_SCHEDULE": '{"a": 1}', "SESSION_BACKEND": "file", "CELERY_BROKER_URL": "x",
        "CELERY_TASK_SOFT_TIME_LIMIT": "soon", "SMS_PROVIDER": "pigeon",
        "CELERY_TASK_SERIALIZER": "pickle", "CELERY_RESULT_SERIALIZER": "yaml",
        "CELERY_RESULT_BACKEND": "nowhere", "CELERY_BROKER_TRANSPORT_OPTIONS": "5",
        "CELERY_TASK_PUBLISH_RETRY_POLICY": "[]", "CELERY_TASK_ANNOTATIONS": "5",
        "CELERY_WORKER_PREFETCH_MULTIPLIER": "-1", "CELERY_ACCEPT_CONTENT": "pickle",
        "ALLOWED_HOSTS": "a.example,http://b.example/", "CELERY_TASK_QUEUES": "a b",
        "CELERY_IMPORTS": "my-tasks",
    }  # fmt: skip
    lines = refusal(wrong).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == sorted(wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://user:hidden@host/name"),
        ("DATABASE_URL", "mysql:user:hidden@host/name"),
        ("DATABASE_URL", "mysql://user:hid@hidden@host:door/name"),
        ("DATABASE_URL", "mysql://user:hidden"),
        ("DATABASE_URL", "user:hidden@host"),
        ("REDIS_URL", "http://:hidden@host/0"),
        ("REDIS_URL", "http://host/0?password=hidden"),
        ("REDIS_URL", "redis://:hid/hidden@host/0"),
        ("REDIS_URL", "redis://host:door/0"),
        ("REDIS_URL", "redis://host/name"),
        ("REDIS_URL", "redis://:hid[hidden@host"),
        ("REDIS_URL", "redis://:hid\N{ACCOUNT OF}hidden@host"),
        ("REDIS_URL", "unix://"),
        ("CELERY_BROKER_URL", "amqp://[host"),
        ("CELERY_BROKER_URL", "redis://host/0;redis://:hidden@host:door/0"),
        ("CELERY_RESULT_BACKEND", "redis://:hidden@host/name"),
        ("CELERY_BROKER_URL", "pigeon://user:hidden@host"),
        ("CELERY_BROKER_URL", "redis://:hidden@host:door/0"),
        ("CELERY_BROKER_URL", "user:hidden@host"),
        ("CELERY_BROKER_TRANSPORT_OPTIONS", '{"password": "hidden"'),
        ("SMS_PROVIDER", "twilio:SID:hidden@+491"),
    ],
)
def test_a_secret_in_a_wrong_value_is_masked(name: str, value: str) -> None:
    said = refusal({name: value, "SECRET_KEY": "hidden"})
    assert said.startswith(f"{name} = ")
    assert "hidden" not in said


def test_a_masked_url_still_shows_where_it_leads() -> None:
    said = refusal({"DATABASE_URL": "mysql://user:hidden@db.example:3306", "SECRET_KEY": "x"})
    assert said.startswith("DATABASE_URL = 'mysql://***@db.example:3306': expected mysql://")


@pytest.mark.parametrize("program", [["quart", "--app", "asgi"], ["celery", "-A", "tasks"]])
def test_a_wrong_value_ends_each_program_without_a_traceback(program: list[str]) -> None:
    done = run(f"import runpy, sys; sys.argv = {[*program, 'report']}; "
               f"runpy.run_module({program[0]!r}, run_name='__main__')",
               {"JOB_LEASE": "long"})  # fmt: skip
    assert done.returncode != 0
    assert "JOB_LEASE = 'long': Not a valid number." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("entry", ['{"schedule": 5}', '{"task": "a", "schedule": "often"}', "5"])
def test_an_entry_of_the_schedule_has_a_task_and_a_time(entry: str) -> None:
    said = refusal({"CELERY_BEAT_SCHEDULE": f'{{"mine": {entry}}}'})
    assert "'mine' is wrong; expected" in said
    assert 'expected {"name": {"task": "…", "schedule": seconds' in said


@pytest.mark.parametrize("name", ["unacked", "quartermaster:live", "x" * 101])
def test_a_queue_whose_name_is_taken_ends_the_start(name: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"CELERY_TASK_QUEUES = '.+': expected up to 100 letters"):
        create_app({"VAR_DIR": tmp_path, "CELERY_TASK_QUEUES": {name: {}}})


def test_a_name_without_a_value_counts_as_not_given() -> None:
    names = [
        "DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "VAR_DIR", "SMS_PROVIDER", "JOB_LEASE",
        "MAX_QUEUE_DEPTH", "ALLOW_DIRECT_CALLS", "ALLOWED_HOSTS", "CELERY_WORKER_CONCURRENCY",
        "CELERY_BEAT_SCHEDULE", "CELERY_RESULT_BACKEND", "SECRET_KEY", "CELERY_TIMEZONE",
    ]  # fmt: skip
    blank, absent = read(dict.fromkeys(names, "")), read({})
    assert [blank[name] for name in names] == [absent[name] for name in names]


def test_mysql_needs_a_secret_key_since_machines_may_share_it() -> None:
    url = "mysql://root@127.0.0.1/app"
    assert refusal({"DATABASE_URL": url}).startswith("SECRET_KEY: expected")
    assert read({"DATABASE_URL": url, "SECRET_KEY": "x"})["DATABASE_URL"] == url


def test_processes_that_start_at_once_agree_on_a_secret_key(tmp_path: Path) -> None:
    code = "from quart_app.app import create_app; print(create_app().config['SECRET_KEY'])"
    env = {"VAR_DIR": str(tmp_path / "var"), "PATH": os.defpath, "PYTHONPATH": str(real.ROOT)}
    argv = [sys.executable, "-c", code]
    children = [subprocess.Popen(argv, env=env, stdout=-1, cwd=real.ROOT) for _ in range(3)]
    keys = {child.communicate(timeout=60)[0] for child in children}
    assert len(keys) == 1
    assert len(keys.pop()) > 40
    assert [path.name for path in (tmp_path / "var").iterdir()] == ["secret_key"]
    assert (tmp_path / "var" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_an_empty_secret_key_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "secret_key").touch()
    with pytest.raises(SystemExit, match=f"{tmp_path}/secret_key is empty: delete it"):
        create_app({"VAR_DIR": tmp_path})


def test_the_environment_goes_before_the_env_file_and_that_before_the_default(
    tmp_path: Path,
) -> None:
    write_env_file(tmp_path, {"JOB_LEASE": "7", "MAX_QUEUE_DEPTH": "5"})
    found = read({"JOB_LEASE": "9"}, tmp_path)
    names = ("JOB_LEASE", "MAX_QUEUE_DEPTH", "PUBLISH_TIMEOUT")
    assert [found[name] for name in names] == [9.0, 5, 1.0]


def test_the_env_file_says_all_that_the_environment_could(tmp_path: Path) -> None:
    given = {
        "REDIS_URL": "redis://there:6379/2", "CELERY_BROKER_URL": "redis://there:6379/3",
        "VAR_DIR": str(tmp_path), "CELERY_RESULT_EXPIRES": "66", "JOB_LEASE": "7",
        "CELERY_WORKER_SEND_TASK_EVENTS": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://there",
    }  # fmt: skip
    write_env_file(tmp_path, given)
    by_file, by_environment = read({}, tmp_path), read(given)
    assert settings_of(by_file) == settings_of(by_environment)
    assert (by_file["EMBEDDED_BROKER"], by_file["ALLOW_DIRECT_CALLS"]) == (False, False)
    assert by_file["CELERY_RESULT_EXPIRES"] == 66


def write_env_file(folder: Path, given: Mapping[str, str]) -> None:
    """Beside a settings.py of its own."""
    shutil.copy(real.ROOT / "settings.py", folder)
    (folder / ".env").write_text("".join(f"{name}={text}\n" for name, text in given.items()))


def settings_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Without what tells where settings.py lies."""
    return {name: value for name, value in found.items() if name.isupper() and name != "BASE"}


def test_what_is_wrong_in_the_env_file_is_told_with_its_value(tmp_path: Path) -> None:
    write_env_file(tmp_path, {"CELERY_TIMEZONE": "Mars"})
    with pytest.raises(SystemExit, match="CELERY_TIMEZONE = 'Mars': expected an IANA"):
        read({}, tmp_path)


def test_a_long_var_dir_gets_a_short_socket(tmp_path: Path) -> None:
    var = tmp_path / ("long" * 40)
    urls = [read({"VAR_DIR": f"{var}{end}"})["REDIS_URL"] for end in ("", "er")]
    assert max(map(len, urls)) < 108
    assert urls[0] != urls[1]


def test_any_other_celery_name_of_the_environment_arrives_in_its_type() -> None:
    found = read({
        "CELERY_TASK_SOFT_TIME_LIMIT": "30", "CELERY_TASK_ACKS_LATE": "true",
        "CELERY_TASK_ROUTES": '{"a.b": {"queue": "c"}}', "CELERY_WORKER_MAX_TASKS_PER_CHILD": "7",
        "CELERY_TASK_DEFAULT_QUEUE": "main", "CELERY_WORKER_PREFETCH_MULTIPLIER": "2",
    })  # fmt: skip
    config = {name: value for name, value in found.items() if name.startswith("CELERY_")}
    conf = create_app(config | {"SECRET_KEY": "x"}).extensions["celery"].conf
    assert (conf.task_soft_time_limit, conf.task_acks_late) == (30.0, True)
    assert conf.task_routes == {"a.b": {"queue": "c"}}
    assert (conf.worker_max_tasks_per_child, conf.worker_prefetch_multiplier) == (7, 2)
    assert conf.task_default_queue == "main"


def test_a_var_dir_that_is_given_in_code_may_be_text(tmp_path: Path) -> None:
    create_app({"VAR_DIR": str(tmp_path / "var")})
    assert (tmp_path / "var" / "secret_key").exists()


def test_no_other_setting_reaches_celery() -> None:
    app = create_app({"SECRET_KEY": "not for Celery", "CELERY_TASK_SOFT_TIME_LIMIT": 3})
    conf = app.extensions["celery"].conf
    assert conf.task_soft_time_limit == 3
    assert "not for Celery" not in repr(conf.table(with_defaults=True, censored=False))
    assert not {"secret_key", "SECRET_KEY", "DATABASE_URL", "redis_url"}.intersection(conf.keys())


def test_a_beat_schedule_may_come_as_json() -> None:
    given = {"a": {"task": "t", "schedule": "*/5 * * * *"}, "b": {"task": "t", "schedule": 2.5}}
    found = read({"CELERY_BEAT_SCHEDULE": json.dumps(given)})["CELERY_BEAT_SCHEDULE"]
    assert found["a"] == {"task": "t", "schedule": crontab(minute="*/5")}
    assert found["b"] == {"task": "t", "schedule": timedelta(seconds=2.5)}


def test_without_the_tasks_that_are_there_none_of_them_is_scheduled() -> None:
    assert read({"CELERY_IMPORTS": "my_tasks"})["CELERY_BEAT_SCHEDULE"] == {}
    given = {"CELERY_IMPORTS": "tasks.scheduler,my_tasks"}
    assert read(given)["CELERY_BEAT_SCHEDULE"].keys() == {"tasks", "prune"}


def test_a_schedule_edited_into_settings_may_be_celerys_own_crontab(tmp_path: Path) -> None:
    text = (real.ROOT / "settings.py").read_text()
    (tmp_path / "settings.py").write_text(text.replace('"*/1 * * * *"', "crontab(minute=7)"))
    entry = read({}, tmp_path)["CELERY_BEAT_SCHEDULE"]["tasks"]
    assert entry["schedule"] == crontab(minute=7)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import nonesuch", "ModuleNotFoundError: No module named 'nonesuch' ("),
        ("def (", "invalid syntax ("),
        ("1 / 0", "ZeroDivisionError: division by zero ("),
    ],
)
def test_a_task_module_that_cannot_be_imported_is_told_in_one_line(
    tmp_path: Path, code: str, told: str
) -> None:
    (tmp_path / "broken_tasks.py").write_text(code)
    assert said_at_the_start(tmp_path).startswith(told)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "class Person: ...\n\n@task\ndef greet(times: int, who: Person): ...",
            "broken_tasks.greet, parameter who: broken_tasks.Person: expected a type that has a"
            " JSON Schema (Cannot generate a JsonSchema for core_schema.IsInstanceSchema"
            " (<class 'broken_tasks.Person'>)) (broken_tasks.py:4)",
        ),
        (
            "if TYPE_CHECKING:\n from people import Person\n\n@task\ndef greet(who: 'Person'): ...",
            "broken_tasks.greet, parameter who: 'Person': expected a type that has a JSON Schema"
            " (name 'Person' is not defined) (broken_tasks.py:5)",
        ),
        (
            "\n@task\ndef greet(self, who: str): ...",
            "TypeError: greet takes self: add bind=True (broken_tasks.py:3)",
        ),
        (
            "@task(max_atempts=3)\ndef greet(): ...",
            "TypeError: greet has no option max_atempts: is max_attempts meant?"
            " (broken_tasks.py:2)",
        ),
        (
            "@task(on_lost='wait')\ndef greet(): ...",
            "ValueError: on_lost = 'wait': expected 'retry' or 'fail' (broken_tasks.py:2)",
        ),
    ],
)
def test_a_task_that_no_job_can_be_made_of_is_told_in_one_line(
    tmp_path: Path, code: str, told: str
) -> None:
    imports = "from typing import TYPE_CHECKING; from tasks.base import task"
    (tmp_path / "broken_tasks.py").write_text(f"{imports}\n{code}")
    assert said_at_the_start(tmp_path).replace(f"{tmp_path}/", "") == f"{told}\n"


def said_at_the_start(folder: Path) -> str:
    """The one line that a process ends with which loads the module `broken_tasks` of the folder."""
    env = {"CELERY_IMPORTS": "broken_tasks", "PYTHONPATH": str(folder), "VAR_DIR": str(folder)}
    argv = real.python("quart", "--app", "asgi", "migrate")
    env = real.environment(env)
    done = subprocess.run(argv, env=env, cwd=real.ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    return done.stderr.decode().removeprefix("CELERY_IMPORTS = 'broken_tasks': ")


def test_lists_have_commas_and_any_space_around_them() -> None:
    found = read({"CELERY_IMPORTS": "a, b ,,c", "CELERY_TASK_QUEUES": " x, y", "ALLOWED_HOSTS": ""})
    assert list(found["CELERY_IMPORTS"]) == ["a", "b", "c"]
    assert list(found["CELERY_TASK_QUEUES"]) == ["x", "y"]
    assert found["ALLOWED_HOSTS"] == read({})["ALLOWED_HOSTS"]


def test_a_broker_elsewhere_leaves_live_progress_to_the_embedded_redis() -> None:
    found = read({"CELERY_BROKER_URL": "amqp://guest:guest@127.0.0.1//"})
    assert (found["EMBEDDED_REDIS"], found["EMBEDDED_BROKER"]) == (True, False)
    assert found["ALLOW_DIRECT_CALLS"] is False
    elsewhere = read({"REDIS_URL": "redis://127.0.0.1/1"})
    assert (elsewhere["EMBEDDED_REDIS"], elsewhere["EMBEDDED_BROKER"]) == (False, False)


@pytest.mark.parametrize(
    ("given", "broker"),
    [
        ("rediss://host/1", "rediss://host/1?ssl_cert_reqs=required"),
        ("rediss://host/1?ssl_ca_certs=x", "rediss://host/1?ssl_ca_certs=x&ssl_cert_reqs=required"),
        ("rediss://host/1?ssl_cert_reqs=none", "rediss://host/1?ssl_cert_reqs=none"),
    ],
)
def test_celery_verifies_an_encrypted_redis_as_redis_py_does(given: str, broker: str) -> None:
    assert read({"REDIS_URL": given})["CELERY_BROKER_URL"] == broker
    both = read({"CELERY_BROKER_URL": f"{given};{given}", "CELERY_RESULT_BACKEND": given})
    assert both["CELERY_BROKER_URL"] == f"{broker};{broker}"
    assert both["CELERY_RESULT_BACKEND"] == broker
