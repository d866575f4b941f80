"""Migrations: they lead to the schema of the models, any number at once, and back."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, inspect, make_url, text
from sqlalchemy.exc import OperationalError

from quart_app import migrations
from quart_app.db import Database
from quart_app.migrations import Behind
from quart_app.models import Base
from tests.conftest import Place
from tests.real import ROOT


@pytest.fixture
def urls(place: Place, tmp_path: Path) -> Iterator[list[str]]:
    """Two databases with nothing in them."""
    if place.name == "sqlite":
        yield [f"sqlite:///{tmp_path}/new folder/{name}.sqlite3" for name in "ab"]
        return
    url = make_url(place.database_url)
    names = ["fresh_a", "fresh_b"]
    with pymysql.connect(
        host=url.host, port=url.port or 3306, user=url.username, password=url.password or ""
    ) as server:
        for name in names:
            server.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
            server.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET latin1")
        yield [url.set(database=name).render_as_string(hide_password=False) for name in names]
        for name in names:
            server.cursor().execute(f"DROP DATABASE {name}")


@pytest.fixture
def database(urls: list[str]) -> Iterator[Database]:
    database = Database(urls[0])
    yield database
    database.engine.dispose()


def schema(database: Database) -> dict[str, Any]:
    """Everything that reflection tells of the tables, in an order of its own."""
    found = inspect(database.engine)
    tables = set(found.get_table_names()) - {"alembic_version"}
    return {table: plain([
        sorted(found.get_columns(table), key=lambda column: column["name"]),
        found.get_pk_constraint(table),
        sorted(found.get_indexes(table), key=lambda index: str(index["name"])),
        sorted(found.get_unique_constraints(table), key=lambda unique: str(unique["name"])),
        found.get_foreign_keys(table), found.get_table_options(table),
    ]) for table in tables}  # fmt: skip


def schema_of_models(url: str) -> dict[str, Any]:
    """That of an empty database in which the models have made their tables."""
    models = Database(url)
    Base.metadata.create_all(models.engine)
    found = schema(models)
    models.engine.dispose()
    return found


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else repr(value)


def downgrade(database: Database, revision: str = "base") -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def test_migrations_lead_to_the_schema_of_the_models(urls: list[str], database: Database) -> None:
    migrations.upgrade(database)
    assert schema(database) == schema_of_models(urls[1])
    assert schema(database).keys() == Base.metadata.tables.keys()


def test_an_upgrade_of_what_is_current_changes_nothing(database: Database) -> None:
    assert migrations.current(database) is None
    first = migrations.upgrade(database)
    before = schema(database)
    assert migrations.upgrade(database) == first == migrations.current(database)
    assert schema(database) == before


def test_it_goes_down_to_nothing_and_up_again(database: Database) -> None:
    migrations.upgrade(database)
    before = schema(database)
    downgrade(database)
    assert (schema(database), migrations.current(database)) == ({}, None)
    migrations.upgrade(database)
    assert schema(database) == before


def test_messages_that_ended_jobs_left_waiting_have_failed(database: Database) -> None:
    migrations.upgrade(database)
    downgrade(database, "0005")
    with database.session() as session:
        for number, state in enumerate(("failed", "cancelled", "retrying")):
            session.execute(text(JOB), {"id": f"job-{number}", "state": state})
        for id_, job_id in LEFT_BEHIND.items():
            session.execute(text(MESSAGE), {"id": id_, "job_id": job_id})
    migrations.upgrade(database)
    with database.session() as session:
        found = session.execute(text("SELECT id, state, error FROM messages ORDER BY id")).all()
    assert [id_ for id_, state, _ in found if state == "failed"] == ["a", "b", "c"]
    assert {error for _, _, error in found} == {None, "its job ended before it was handed over"}


JOB = (
    "INSERT INTO jobs (id, state, task, args, kwargs, queue, priority, attempt, max_attempts,"
    " losses, last_seq, accepted_at, available_at, rings, cancel_requested, context)"
    " VALUES (:id, :state, 't', '[]', '{}', 'q', 0, 1, 1,"
    " 0, 1, '2026-01-01', '2026-01-01', 0, 0, '{}')"
)
MESSAGE = (
    "INSERT INTO messages (id, job_id, `to`, text, state, created_at)"
    " VALUES (:id, :job_id, '+1', 'x', 'waiting', '2026-01-01')"
)
#: The job of each message: failed, cancelled, gone, still at work, and none yet.
LEFT_BEHIND = {"a": "job-0", "b": "job-1", "c": "gone", "d": "job-2", "e": None}


def test_processes_that_migrate_at_once_do_no_harm(urls: list[str], database: Database) -> None:
    code = (
        "from quart_app import migrations; from quart_app.db import Database\n"
        f"print(migrations.upgrade(Database({urls[0]!r})))"
    )
    start = [sys.executable, "-c", code]
    children = [subprocess.Popen(start, stdout=-1, cwd=ROOT, text=True) for _ in range(3)]
    said = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert said == {migrations.head()} == {migrations.current(database)}


def test_sqlite_is_never_seen_between_two_revisions(urls: list[str], database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("a server's DDL commits by itself")
    other, seen = Database(urls[0]), set()
    event.listen(database.engine, "begin", lambda _: seen.add(migrations.current(other)))
    event.listen(database.engine, "commit", lambda _: seen.add(migrations.current(other)))
    migrations.upgrade(database)
    other.engine.dispose()
    assert migrations.current(database) == migrations.head()
    assert seen == {None, migrations.head()}


def test_an_upgrade_cut_off_at_any_statement_is_finished_by_a_later_one(
    urls: list[str], database: Database
) -> None:
    done: set[str] = set()
    while migrations.current(database) != migrations.head():
        with cut_off_after_one_more(done):
            migrations.upgrade(database)
    assert len(done) > 30
    assert schema(database) == schema_of_models(urls[1])


@contextmanager
def cut_off_after_one_more(done: set[str]) -> Iterator[None]:
    """Lets one statement through that changes something and is not `done` yet, and none after."""
    new: list[str] = []

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(("CREATE", "ALTER", "DROP", "INSERT", "UPDATE")):
            if new:
                raise KeyboardInterrupt
            if statement not in done:
                done.add(statement)
                new.append(statement)

    event.listen(Engine, "before_cursor_execute", execute)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        event.remove(Engine, "before_cursor_execute", execute)
    assert new, "nothing more was done, and the end was not reached"


def test_a_table_of_another_application_is_not_taken_for_ours(
    database: Database,
) -> None:
    if database.is_sqlite:
        pytest.skip("it goes on with nothing: what is cut off is undone")
    with database.session() as session:
        session.execute(text("CREATE TABLE jobs (theirs INTEGER)"))
    for _ in range(2):
        with pytest.raises(OperationalError, match="jobs"):
            migrations.upgrade(database)


def test_what_is_met_is_upgraded_on_sqlite_and_named_on_a_server(database: Database) -> None:
    if database.is_sqlite:
        migrations.ensure(database)
    else:
        with pytest.raises(Behind, match=r"run\.py migrate.* at nothing"):
            migrations.ensure(database)
        migrations.upgrade(database)
        migrations.ensure(database)
    assert migrations.current(database) == migrations.head()


def test_a_database_of_a_newer_version_is_left_alone(database: Database) -> None:
    migrations.upgrade(database)
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Behind, match="9999"):
        migrations.ensure(database)
    with pytest.raises(Behind):
        migrations.upgrade(database)


def test_a_server_that_is_away_is_not_taken_for_an_old_one() -> None:
    migrations.ensure(Database("mysql://root@127.0.0.1:1/none"))


async def test_a_web_says_that_a_servers_schema_is_behind(
    place: Place, urls: list[str], tmp_path: Path
) -> None:
    if place.name == "sqlite":
        pytest.skip("it is brought up to date by the web")
    app = Place("behind", tmp_path, urls[0], f"unix://{tmp_path}/nobody").app()
    headers = {"Authorization": "Bearer qm_of_somebody"}

    async def is_told(client: Any, path: str) -> None:
        answer = await client.get(path, headers=headers)
        said = await answer.get_json()
        assert (answer.status_code, said["title"]) == (503, "Schema is behind")
        assert "run.py migrate" in said["detail"]

    async with app.test_app() as serving:
        await is_told(serving.test_client(), "/api/jobs")
        await is_told(serving.test_client(), "/jobs")
        database = app.extensions["db"]
        await asyncio.to_thread(migrations.upgrade, database)
        await asyncio.to_thread(downgrade, database, "0003")  # before tokens had a column
        await is_told(serving.test_client(), "/api/jobs")


def test_a_new_file_of_sqlite_is_its_owners_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    database = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    migrations.upgrade(database)
    with database.session() as session:
        session.execute(text("DELETE FROM jobs"))
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    database.dispose()


async def test_a_web_by_itself_brings_sqlite_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new folder/a.sqlite3"
    app = Place("sqlite", tmp_path, url, f"unix://{tmp_path}/nobody").app()
    async with app.test_app():
        assert migrations.current(app.extensions["db"]) == migrations.head()


async def test_a_web_serves_on_a_schema_newer_than_its_own(tmp_path: Path) -> None:
    app = Place("sqlite", tmp_path, f"sqlite:///{tmp_path}/a.sqlite3", "unix:///nowhere").app()
    database = app.extensions["db"]
    migrations.upgrade(database)
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    async with app.test_app():
        assert (await app.test_client().get("/healthz")).status_code == 200
