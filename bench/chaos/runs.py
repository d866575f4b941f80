"""One run: load, faults at random moments, peace, and what the database says then."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoAnswer

from bench.chaos import faults, findings, tables
from bench.chaos.client import Client
from bench.chaos.disk import NotPermitted
from bench.chaos.faults import Fault
from bench.chaos.findings import TERMINAL, Findings
from bench.chaos.place import Place
from bench.chaos.report import Report
from bench.chaos.systems import OURS, System

_BETWEEN = (1.0, 2.5)
#: Longer than its visibility timeout with the best settings; with its own it is an hour.
_PATIENCE_WITH_PLAIN = 30.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is submitted while `faults` faults happen; they end when the jobs are through."""

    jobs: int = 2000
    faults: int = 25
    rate: float = 100.0
    task_ms: int = 20
    #: Seconds without any job's end, when the faults are over, after which the rest is lost.
    patience: float = 90.0


def run(
    fault: str,
    load: Load = Load(),
    *,
    seed: int = 1,
    database: str = "sqlite",
    system: System = OURS,
    keep: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Report:
    """Has the fault (or `mixed`) happen to real processes under load; `say` hears of each.

    Raises NotPermitted where it takes a disk of its own and none can be mounted.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{fault}-"))
    try:
        special = {
            "may_be_full": faults.fills_disks(fault),
            "sets_clocks": faults.sets_clocks(fault, database),
        }
        with Place(folder, system, database, **special) as place:
            report = _Run(place, fault, load, Random(seed), say).report()
    except (KeyboardInterrupt, NotPermitted):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if report.is_good and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return report


class _Run:
    def __init__(
        self, place: Place, fault: str, load: Load, random: Random, say: Callable[[str], object]
    ) -> None:
        self.place, self.fault, self.load, self.random, self.say = place, fault, load, random, say
        self.client = Client(place.urls, place.headers, place.folder / "accepted", load.task_ms)
        self.injected = 0
        self.began = time.monotonic()

    def report(self) -> Report:
        try:
            self.client.start(self.load.jobs, self.load.rate)
            self._inject()
            self.place.crew.heal()
            self._wait()
        finally:
            self.client.stop()
        seconds = time.monotonic() - self.began
        return Report(
            fault=self.fault,
            system=f"{self.place.system.name}, {self.place.kind}",
            injected=self.injected,
            submitted=self.client.submitted,
            accepted=len(self.client.accepted),
            findings=self._findings(),
            seconds=seconds,
            answers=self.client.answers,
            exits=self.place.crew.exits,
            folder=self.place.folder,
            note=self._note(),
        )

    def _inject(self) -> None:
        turns = self._turns()
        with (self.place.logs / "faults.log").open("a") as log:
            while self.injected < self.load.faults and not self._is_through():
                time.sleep(self.random.uniform(*_BETWEEN))
                if done := next(turns)(self.place, self.random):
                    self.injected += 1
                    line = f"{time.monotonic() - self.began:6.1f} s  {done}"
                    print(line, file=log, flush=True)
                    self.say(line)

    def _turns(self) -> Iterator[Fault]:
        """Each that is possible once, in whatever order, and again in another."""
        possible = faults.possible(self.fault, self.place.kind)
        while True:
            yield from self.random.sample(possible, len(possible))

    def _wait(self) -> None:
        """Until all is through, or nothing has come to its end for as long as patience lasts."""
        patience = self.load.patience if self.place.system.is_ours else _PATIENCE_WITH_PLAIN
        rest, since = self._rest(), time.monotonic()
        while rest != 0 and time.monotonic() < since + patience:
            time.sleep(0.2)
            if (now := self._rest()) != rest:
                rest, since = now, time.monotonic()

    def _is_through(self) -> bool:
        return self._rest() == 0

    def _rest(self) -> int | None:
        """How many jobs have not come to their end; None while nobody knows."""
        sql = "SELECT COUNT(DISTINCT job_id) FROM effects"
        if self.place.system.is_ours:
            sql = f"SELECT COUNT(*) FROM jobs WHERE schedule_id IS NULL AND state IN {TERMINAL}"
        try:
            return self.load.jobs - self.place.count(sql)
        except (DBAPIError, NoAnswer):
            return None

    def _findings(self) -> Findings:
        with self.place.database.session() as session:
            tables.keep_accepted(session, self.client.accepted)
        with self.place.database.session(reading=True) as session:
            if not self.place.system.is_ours:
                return findings.of_plain_celery(session)
            found = findings.of_the_ledger(session)
            told = [findings.story(session, job_id) for job_id in found.conspicuous]
        (self.place.logs / "jobs.txt").write_text("\n".join(told))
        return found

    def _note(self) -> str:
        if self.place.system.is_ours:
            return ""
        with self.place.redis() as redis:
            counts = redis.hlen("unacked"), redis.llen("celery")
        return "at the end, {} messages lie in unacked and {} in the queue".format(*counts)
