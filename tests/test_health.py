"""What is wrong with each part, and its remedy, told from the real database and the real broker."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from quart import Quart
from sqlalchemy import delete, make_url, text, update

from quart_app import db, health, migrations, nodes
from quart_app.models import Node
from tests.conftest import Place

ALL = ["database", "schema", "clock", "worker", "beat", "broker"]


@pytest.fixture
def manned(clean: Place) -> Iterator[Quart]:
    """An application with a worker and a beat that have just been heard of, and no other."""
    app = clean.app()
    with app.extensions["db"].session() as session:
        session.execute(delete(Node))
        for kind in ("worker", "beat"):
            nodes.seen(session, f"test {kind}", kind, "boot", {"pid": 1})
    yield app
    app.extensions["publisher"].close()


def faults(app: Quart) -> dict[str, str]:
    parts = health.check(app.extensions["db"], app.extensions["publisher"])
    return {part.name: part.fault for part in parts if part.fault}


def test_with_all_there_no_part_has_a_fault(manned: Quart) -> None:
    parts = health.check(manned.extensions["db"], manned.extensions["publisher"])
    assert [part.name for part in parts] == ALL
    assert faults(manned) == {}


@pytest.mark.parametrize("kind", ["worker", "beat"])
def test_a_silent_one_is_missed_and_its_remedy_named(manned: Quart, kind: str) -> None:
    with manned.extensions["db"].session() as session:
        silent = update(Node).where(Node.kind == kind)
        session.execute(silent.values(seen_at=db.now(-nodes.GONE_AFTER - 1)))
    parts = health.check(manned.extensions["db"], manned.extensions["publisher"])
    (missed,) = (part for part in parts if part.fault)
    assert (missed.name, missed.fault) == (kind, "none was heard of for 10 s")
    assert f"celery -A tasks {kind}" in missed.remedy


def test_a_broker_that_is_away_is_told_from_the_rest(clean: Place) -> None:
    app = clean.app(CELERY_BROKER_URL="redis://127.0.0.1:1/0")
    assert "broker" in faults(app)
    assert "database" not in faults(app)


def test_a_database_that_is_away_is_told_from_the_broker(clean: Place) -> None:
    app = clean.app(DATABASE_URL="mysql://me:s3cret@127.0.0.1:1/x")
    unknown = "not known, since the database does not answer"
    assert faults(app) == {
        "database": "does not answer (OperationalError)",
        **dict.fromkeys(["schema", "clock", "worker", "beat"], unknown),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"username": "nobody", "password": "s3cret"}, r"^\(1045, .*Access denied.*; see that it"),
        ({"database": "no such"}, r"^\(1049, .*; create it with: CREATE DATABASE `no such` CHAR"),
    ],
)
def test_what_the_database_refuses_is_told_in_its_words(
    clean: Place, change: dict[str, Any], said: str
) -> None:
    if clean.name == "sqlite":
        pytest.skip("refuses nobody")
    url = make_url(clean.database_url).set(**change).render_as_string(hide_password=False)
    app = clean.app(DATABASE_URL=url)
    part = health.check(app.extensions["db"], app.extensions["publisher"])[0]
    assert part.fault == "does not answer (OperationalError)"
    assert re.search(said, part.remedy)
    assert "s3cret" not in part.remedy


def test_an_older_schema_is_told_with_its_remedy(clean: Place) -> None:
    app = clean.app()
    head = migrations.head()
    set_revision(app, "0000")
    unknown = "not known, since the schema is behind"
    assert faults(app) == {"schema": "behind"} | dict.fromkeys(["clock", "worker", "beat"], unknown)
    set_revision(app, head)


def test_a_clock_that_differs_is_told(manned: Quart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_SKEW", -3600.0)
    assert "clock" in faults(manned)


def set_revision(app: Quart, revision: str) -> None:
    with app.extensions["db"].session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
