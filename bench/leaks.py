"""Whether memory and open files of a worker stay flat over thousands of tasks, on each pool.

.venv/bin/python -m bench.leaks [--pool NAME] [--tasks 10000]

Each pool gets a worker of tests/plain_app.py and a Redis of its own. Half of the tasks are `def`,
half `async def`. "ledger" is a prefork worker whose tasks are jobs, and the web that accepts them.
Exits with 1 when a process grew by more than 5 MB or files were left open.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from redis import Redis

from bench.ours import NOTHING, Site, Web
from bench.run import Run
from tests import real

LEDGER = "ledger"
POOLS = ["prefork", "threads", "solo", "gevent"]
WARM_UP = 2000
_BATCH = 500
MOST_GROWTH = 5 * 2**20
#: A loop, of three files, and a connection for each of four tasks may be made late, when as many
#: run at once as never before.
MOST_NEW_FILES = 16

_ROW = "{:8} {:>6} {:>10} {:>11} {:>11} {:>12} {:>12}"
_HEAD = ("pool", "tasks", "processes", "MB before", "MB after", "files before", "files after")


@dataclass(frozen=True)
class Sample:
    """Of one process: bytes in memory, and how many files it holds open."""

    memory: int
    files: int


@dataclass(frozen=True)
class Finding:
    """The processes of a worker by id, after the warm-up and at the end."""

    pool: str
    tasks: int
    before: dict[int, Sample]
    after: dict[int, Sample]

    @property
    def growth(self) -> int:
        """Bytes, of the process that grew most."""
        return max(self.after[pid].memory - self.before[pid].memory for pid in self.after)

    @property
    def files(self) -> tuple[int, int]:
        """Open in all processes, before and after."""
        before, after = (sum(s.files for s in at.values()) for at in (self.before, self.after))
        return before, after

    @property
    def leaks_memory(self) -> bool:
        return self.growth > MOST_GROWTH

    @property
    def leaks_files(self) -> bool:
        before, after = self.files
        return after - before > MOST_NEW_FILES

    def __str__(self) -> str:
        sums = [sum(s.memory for s in at.values()) / 2**20 for at in (self.before, self.after)]
        shown = (f"{memory:.1f}" for memory in sums)
        return _ROW.format(self.pool, self.tasks, len(self.after), *shown, *self.files)


def measure(pool: str, tasks: int, warm_up: int = WARM_UP) -> Finding:
    with tempfile.TemporaryDirectory() as name, real.redis_server(Path(name)) as url:
        # They wait for the worker, so that it runs as many at once as it ever will.
        send(url, warm_up)
        with worker(pool, url, Path(name)) as pid:
            wait(url, warm_up)
            before = look(pid)
            send(url, tasks)
            wait(url, warm_up + tasks)
            return Finding(pool, tasks, before, look(pid))


def measure_ledger(tasks: int, warm_up: int = WARM_UP) -> Finding:
    with Run() as run:
        site = Site(run, "leaks")
        with site.web() as web, site.worker("--concurrency=4") as process:
            bring_through(site, web, warm_up)
            before = look(process.pid) | look(web.pid)
            bring_through(site, web, tasks)
            return Finding(LEDGER, tasks, before, look(process.pid) | look(web.pid))


def bring_through(site: Site, web: Web, jobs: int) -> None:
    for _ in range(jobs // _BATCH):
        web.call("POST", "/api/jobs/batch", json={"jobs": [{"task": NOTHING}] * _BATCH})
        web.read("/metrics")
        real.until(lambda: site.count("state <> 'succeeded'") < 2 * _BATCH, 120)
    real.until(lambda: not site.count("state <> 'succeeded'"), 120)


@contextmanager
def worker(pool: str, url: str, folder: Path) -> Iterator[int]:
    words = ["worker", "--loglevel=warning", "-P", pool, "-c", "4"]
    argv = real.python("celery", "-A", "tests.plain_app.celery", *words)
    with real.process(argv, {"PLAIN_REDIS": url}, folder / "log") as child:
        yield child.pid


def send(url: str, tasks: int) -> None:
    with Celery(broker=url, set_as_current=False) as sender:
        for number in range(tasks):
            sender.send_task(f"tests.plain_app.{('add', 'add_later')[number % 2]}", (number, 1))


def wait(url: str, tasks: int) -> None:
    """Returns when so many have their results."""
    with Redis.from_url(url) as redis:
        # The cheap question first: it is asked fifty times a second.
        real.until(lambda: not redis.llen("celery") and _results(redis) == tasks, 60 + tasks / 10)


def _results(redis: Redis) -> int:
    return len(redis.keys("celery-task-meta-*"))


def look(pid: int) -> dict[int, Sample]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {each: _sample(each) for each in [pid, *map(int, children)]}


def _sample(pid: int) -> Sample:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir())))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    choices = [*POOLS, LEDGER]
    parser.add_argument("--pool", choices=choices, help="all of them in turn if not given")
    parser.add_argument("--tasks", type=int, default=10_000)
    options = parser.parse_args()
    print(_ROW.format(*_HEAD))
    leaks = False
    for pool in [options.pool] if options.pool else choices:
        finding = measure_ledger(options.tasks) if pool == LEDGER else measure(pool, options.tasks)
        print(finding, flush=True)
        leaks = leaks or finding.leaks_memory or finding.leaks_files
    sys.exit(leaks)


if __name__ == "__main__":
    main()
