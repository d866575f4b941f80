"""What each part of the system is like right now, and what to do about it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from quart_app import db, migrations, mysql, nodes
from quart_app.models import Node
from quart_app.publisher import Publisher

#: Seconds by which this machine's clock may differ from the database's.
_SKEW = 5.0
_MIGRATE = "run `python3 run.py migrate`"
_SEE_DATABASE = "see that it runs and that DATABASE_URL is right"


@dataclass(frozen=True, slots=True)
class Part:
    """One part; `fault` is None when it is well, else a short sentence, and `remedy` what helps.

    Anybody may read the fault; the remedy, which may name users and hosts, is for operators.
    """

    name: str
    fault: str | None = None
    remedy: str = ""


def check(database: db.Database, broker: Publisher) -> list[Part]:
    """Every part; each takes a few seconds at most, also when nothing answers."""
    return [*_database(database), _broker(broker)]


def _database(database: db.Database) -> Iterator[Part]:
    started = time.monotonic()
    try:
        if migrations.current(database) != migrations.head():
            yield Part("database")
            yield Part("schema", "behind", _MIGRATE)
            yield from _unknown("the schema is behind", _MIGRATE)
            return
        with database.session(reading=True) as session:
            parts = [_clock(session, started), *_nodes(session)]
    except Exception as error:
        fault = f"does not answer ({type(error).__name__})"
        yield Part("database", fault, _database_remedy(database, error))
        yield from _unknown("the database does not answer", _SEE_DATABASE, "schema")
        return
    yield from [Part("database"), Part("schema"), *parts]


def _database_remedy(database: db.Database, error: Exception) -> str:
    if not isinstance(error, DBAPIError):
        return _SEE_DATABASE
    remedy = mysql.creation(database.url) if mysql.is_missing(error) else _SEE_DATABASE
    return f"{db.reason(error)}; {remedy}"


def _unknown(reason: str, remedy: str, *also: str) -> Iterator[Part]:
    """What only the tables could tell."""
    for name in (*also, "clock", "worker", "beat"):
        yield Part(name, f"not known, since {reason}", remedy)


def _clock(session: Session, started: float) -> Part:
    theirs = db.clock(session)
    skew = abs((datetime.now(UTC) - theirs).total_seconds()) - (time.monotonic() - started)
    if skew > _SKEW:
        return Part("clock", f"differs from the database's by {skew:.0f} s", "run an NTP client")
    return Part("clock")


def _nodes(session: Session) -> Iterator[Part]:
    silent = f"none was heard of for {nodes.GONE_AFTER:.0f} s"
    for kind in ("worker", "beat"):
        online = nodes.online(session, kind)
        remedy = f"start `python3 run.py`, or `celery -A tasks {kind} --loglevel=info` alone"
        yield _starved(kind, online) if online else Part(kind, silent, remedy)


def _starved(kind: str, online: Sequence[Node]) -> Part:
    """Whether one of them gets no messages although some wait; it soon starts itself again."""
    for node in online:
        if nodes.is_starved(node):
            since = f"for {node.info['starved']} s"
            fault = f"{node.name} has got no message {since} though some wait for it"
            return Part(kind, fault, "it starts itself again; if that does not help, see its log")
    return Part(kind)


def _broker(broker: Publisher) -> Part:
    try:
        broker.ping()
    except Exception as error:
        fault = f"does not answer ({type(error).__name__})"
        remedy = "see that it runs and that REDIS_URL or CELERY_BROKER_URL is right"
        if broker.is_embedded:
            remedy = "start `python3 run.py`"
        elif isinstance(error, RedisError):  # whose words never tell a password
            remedy = f"{error}; {remedy}"
        return Part("broker", fault, remedy)
    return Part("broker")
