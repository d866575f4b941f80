"""What each process holds with some jobs waiting and with very many, side by side in one run.

`python -m bench.depth --jobs 1000000` has two webs, workers and beats, and MariaDB and Redis of its
own. Jobs are put into the table as if accepted while the broker was away, so that the relay has to
ring for all of them. Exits 1 when a process grew by more than a tenth, or when no job was done.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
import uuid_utils

from bench.chaos.place import Place
from bench.chaos.systems import OURS
from bench.lists import fill
from bench.rows.memory import megabytes
from quart_app.models import JobState

#: More than the relay takes into its hands, which is bounded.
FEW = 20_000
_TASK = "bench.chaos.tasks.work"
_MOST = 1.1
_PARTS = 50
_PATHS = ("/api/queues", "/api/jobs", "/metrics", "/readyz")


def waiting(count: int) -> Iterator[dict[str, Any]]:
    """Accepted now, and the broker has not heard of them."""
    now = datetime.now(UTC)
    for _ in range(count):
        yield {
            "id": str(uuid_utils.uuid7()), "task": _TASK, "args": [], "kwargs": {"ms": 5},
            "queue": "celery", "priority": 0, "state": JobState.QUEUED, "attempt": 0,
            "max_attempts": 20, "last_seq": 1, "accepted_at": now, "available_at": now,
            "on_lost": "retry", "cancel_requested": False, "context": {},
        }  # fmt: skip


def work(place: Place, seconds: float) -> Mapping[str, float]:
    """The most that each process held meanwhile, in MB, while people look at the lists."""
    most: dict[str, float] = {}
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for url in place.urls:
            for path in _PATHS:
                urllib3.request("GET", url + path, headers=place.headers, timeout=30)
        for name, held in sizes(place):
            most[name] = max(held, most.get(name, 0))
        time.sleep(0.2)
    return most


def sizes(place: Place) -> Iterator[tuple[str, float]]:
    for name, part in place.crew.parts.items():
        if part.pid and name != "mariadb":
            yield name, megabytes(part.pid)
            for number, pid in enumerate(part.children()):
                yield f"{name}, child {number + 1}", megabytes(pid)


def measure(place: Place, jobs: int, seconds: float) -> bool:
    fill(place.database, waiting(FEW))
    few = work(place, seconds)
    for _ in range(_PARTS):
        fill(place.database, waiting(jobs // _PARTS))
        work(place, 0.1)  # as somebody always does: what has ended is counted a little at a time
    before = _done(place)
    many = work(place, seconds)
    done = _done(place) - before
    print(f"{'MB, at most':20}{FEW:>12}{jobs:>12}")
    for name, held in many.items():
        print(f"{name:20}{few[name]:>12.0f}{held:>12.0f}")
    print(f"{done} jobs done meanwhile")
    return done > 0 and all(held <= _MOST * few[name] for name, held in many.items())


def _done(place: Place) -> int:
    return place.count("SELECT count(*) FROM jobs WHERE state = 'succeeded'")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.depth", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60, help="of work with few, and with many")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Place(Path(folder), OURS, "mariadb") as place:
        sys.exit(0 if measure(place, given.jobs, given.seconds) else 1)


if __name__ == "__main__":
    main()
