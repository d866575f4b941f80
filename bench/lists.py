"""How long the lists of jobs and the figures of queues take with very many jobs.

`python -m bench.lists --rows 1000000 --database mariadb` fills a database of its own and asks the
application, in this process, for the first page of each filter and for those after it.
"""

import argparse
import asyncio
import json
import math
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import uuid_utils
from quart import Quart
from sqlalchemy import insert

from bench import parts
from quart_app import migrations, tokens
from quart_app.app import create_app
from quart_app.db import Database
from quart_app.models import Job, JobState, Role
from tests import real

DAYS = 7
BATCH = 2_000
TASKS = {"shop.orders.confirm": 60, "shop.mail.send": 25, "shop.images.resize": 10,
         "shop.reports.build": 4.9, "shop.never.succeeds": 0.1}  # fmt: skip
QUEUES = {"celery": 80, "mail": 18, "slow": 1.9, "rare": 0.1}
STATES = {JobState.SUCCEEDED: 93, JobState.FAILED: 4, JobState.CANCELLED: 1, JobState.QUEUED: 1.9,
          JobState.SCHEDULED: 0.1, JobState.RETRYING: 0.01, JobState.RUNNING: 0.01}  # fmt: skip
WORDS = ["Ōsaka", "overnight", "gift", "reserved", "北京", "invoice", "express", "fragile"]
NOW = datetime.now(UTC)


class Taken(NamedTuple):
    """How long a request took, and how long this process was busy with it, client and all."""

    seconds: float
    busy: float


def ago(**time: float) -> str:
    return (NOW - timedelta(**time)).isoformat()


ASKED: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "limit of 500": {"limit": 500},
    "state, most": {"state": "succeeded"},
    "state, few": {"state": "failed"},
    "state, hardly any": {"state": "running"},
    "task, most": {"task": "shop.orders.confirm"},
    "task, few": {"task": "shop.never.succeeds"},
    "task, none": {"task": "shop.nothing"},
    "queue, most": {"queue": "celery"},
    "queue, few": {"queue": "rare"},
    "since": {"since": ago(hours=1)},
    "until": {"until": ago(days=3)},
    "since and until": {"since": ago(days=3, hours=1), "until": ago(days=3)},
    "state and task": {"state": "failed", "task": "shop.mail.send"},
    "state and task, none": {"state": "succeeded", "task": "shop.never.succeeds"},
    "state and queue": {"state": "failed", "queue": "rare"},
    "task and queue": {"task": "shop.reports.build", "queue": "rare"},
    "state, task and queue": {"state": "failed", "task": "shop.mail.send", "queue": "slow"},
    "state, since, until": {"state": "failed", "since": ago(days=3), "until": ago(days=2)},
    "task and until": {"task": "shop.reports.build", "until": ago(days=3)},
    "text, in most": {"q": "order"},
    "text, in few": {"q": "ōsaka FRAGILE"},
    "text, in none": {"q": "nowhere to be found"},
    "text of a number": {"q": "777777"},
    "text and state": {"q": "timed out", "state": "failed"},
    "text and a rare task": {"q": "fragile", "task": "shop.never.succeeds"},
    "text, since, until": {"q": "fragile", "since": ago(days=3, hours=1), "until": ago(days=3)},
}  # fmt: skip


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """A new one, on a server with memory for such a table."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/bench.sqlite3"
        return
    port = parts.free_port()
    argv = parts.mariadb_command(parts.mariadbd() or "mariadbd", folder, port)
    more = ["--innodb-buffer-pool-size=2G", "--innodb-log-file-size=512M"]
    with real.process([*argv, *more], {}, folder / "mariadb.log"):
        parts.until(lambda: parts.made_database(port, "bench"))
        yield f"mysql://root@127.0.0.1:{port}/bench"


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Jobs of a week, oldest first, of which one in a hundred came from another Celery client."""
    chosen = random.Random(1)
    first, step = NOW - timedelta(days=DAYS), timedelta(days=DAYS) / count
    picked: dict[str, list[Any]] = {
        "task": chosen.choices(list(TASKS), list(TASKS.values()), k=count),
        "queue": chosen.choices(list(QUEUES), list(QUEUES.values()), k=count),
        "state": chosen.choices(list(STATES), list(STATES.values()), k=count),
    }
    for number in range(count):
        job = {name: values[number] for name, values in picked.items()}
        yield row(number, job, first + step * number, chosen)


def row(number: int, job: dict[str, Any], at: datetime, chosen: random.Random) -> dict[str, Any]:
    state = job["state"]
    if job["task"] == "shop.never.succeeds" and state is JobState.SUCCEEDED:
        state = JobState.FAILED
    ended = state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    said = " ".join(chosen.choices(WORDS, k=6))
    new = str(uuid_utils.uuid7(nanoseconds=int(at.timestamp() * 1e9)))
    return job | {
        "id": new if number % 100 else str(uuid.UUID(int=chosen.getrandbits(128), version=4)),
        "args": [], "kwargs": {"order": number, "note": said, "to": f"+1201555{number % 10000:04}"},
        "state": state, "attempt": int(ended), "max_attempts": 3, "priority": 0,
        "last_seq": 3 if ended else 1, "accepted_at": at, "available_at": at, "published_at": at,
        "rings": 1, "started_at": at if ended else None, "finished_at": at if ended else None,
        "result": {"sent": True, "text": said * chosen.randint(1, 20)} if ended else None,
        "error": "TimeoutError: timed out" if state is JobState.FAILED else None,
        "worker": "celery@bench" if ended else None, "context": {"request_id": new},
    }  # fmt: skip


def fill(database: Database, made: Iterable[dict[str, Any]]) -> None:
    batch: list[dict[str, Any]] = []
    with database.engine.connect() as connection:
        for one in made:
            batch.append(one)
            if len(batch) == BATCH:
                connection.execute(insert(Job), batch)
                connection.commit()
                batch.clear()
        if batch:
            connection.execute(insert(Job), batch)
        connection.commit()


async def measure(app: Quart, most: int) -> None:
    with app.extensions["db"].session() as session:
        secret = tokens.create(session, "bench", Role.VIEWER)
    client = app.test_client()
    headers = {"Authorization": f"Bearer {secret}"}

    async def ask(path: str, asked: Mapping[str, Any]) -> tuple[Taken, Any]:
        began, busy = time.perf_counter(), time.process_time()
        answer = await client.get(path, headers=headers, query_string=asked)
        body = await answer.get_data()
        assert answer.status_code == 200, body
        return Taken(time.perf_counter() - began, time.process_time() - busy), body

    for _ in range(20):
        await ask("/api/jobs", {})
    heads = "".join(
        f"{head:>8}" for head in ("p50 ms", "p95 ms", "most", "CPU ms", "pages", "jobs")
    )
    print(f"\n{'GET /api/jobs by':<24}{heads}")
    for name, asked in ASKED.items():
        taken, found, cursor = [], 0, None
        for _ in range(most):
            one, body = await ask("/api/jobs", {**asked, **({"cursor": cursor} if cursor else {})})
            page = json.loads(body)
            taken.append(one)
            found, cursor = found + len(page["items"]), page["next"]
        tell(name, taken, most, found)
    for path in ("/api/queues", "/metrics"):
        tell(path, [(await ask(path, {}))[0] for _ in range(most)])


def tell(name: str, taken: list[Taken], *counts: int) -> None:
    ordered = sorted(1000 * one.seconds for one in taken)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    busy = 1000 * statistics.mean(one.busy for one in taken)
    times = "".join(f"{ms:>8.1f}" for ms in (statistics.median(ordered), p95, ordered[-1], busy))
    print(f"{name:<24}{times}" + "".join(f"{count:>8}" for count in counts))


def main(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, database(given.database, Path(name)) as url:
        app = create_app({
            "DATABASE_URL": url, "VAR_DIR": Path(name), "SECRET_KEY": "of a bench",
            "REDIS_URL": "redis://127.0.0.1:1/0", "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
        })  # fmt: skip
        migrations.upgrade(app.extensions["db"])
        began = time.monotonic()
        fill(app.extensions["db"], rows(given.rows))
        print(f"{given.rows} jobs on {given.database}, made in {time.monotonic() - began:.0f} s")
        asyncio.run(served(app, given.requests))


async def served(app: Quart, most: int) -> None:
    await measure(app, most)
    await app.extensions["db"].close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=60, help="of each kind")
    parser.add_argument("--database", choices=["mariadb", "sqlite"], default="mariadb")
    main(parser.parse_args())
