"""How long requests take while Redis is there, closed and frozen, side by side in one run.

`python -m bench.brokerless` has a web, a worker, MariaDB (or `--database sqlite`) and Redis of its
own. Exits 1 unless every job was accepted while Redis was away, all of them ran once it was back,
and the goals hold: p99 of GET /healthz within 50 ms, of POST /api/jobs within 300 ms.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import urllib3

from bench import parts
from bench.chaos.place import Place
from bench.chaos.systems import OURS

GOALS = {"GET /healthz": 0.05, "POST /api/jobs": 0.3}
STATES = ("there", "closed", "frozen")
_THREADS = 4
_TASK = "bench.chaos.tasks.work"


class Asking:
    """Both requests in turn, at a steady pace, for so many seconds."""

    def __init__(self, place: Place, rate: float, seconds: float) -> None:
        self._url, self._headers = place.urls[0], place.headers
        self._rate, self._count = rate, int(rate * seconds)
        self._http = urllib3.PoolManager(maxsize=_THREADS, retries=False, timeout=30)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        turns, began = itertools.count(), time.monotonic()

        def work() -> None:
            while (turn := next(turns)) < self._count:
                time.sleep(max(0.0, began + turn / self._rate - time.monotonic()))
                self._ask("GET", "/healthz", None)
                self._ask("POST", "/api/jobs", {"task": _TASK, "kwargs": {"ms": 1}})

        threads = [threading.Thread(target=work) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None) -> None:
        began = time.perf_counter()
        answer = self._http.request(method, self._url + path, json=body, headers=self._headers)
        self.times[f"{method} {path}"].append(time.perf_counter() - began)
        if body:
            self.statuses[answer.status] += 1


def put(place: Place, state: str, seconds: float) -> None:
    redis = place.crew.parts["redis"].pid
    if state == "closed":
        place.crew.kill("redis", down=seconds)
    elif state == "frozen" and redis:
        place.crew.freeze([redis], seconds)


def is_through(place: Place) -> bool:
    return place.count("SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == 0


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def measure(place: Place, rate: float, seconds: float) -> bool:
    is_good = True
    print(f"{'Redis':8}{'request':18}{'p50 ms':>9}{'p99 ms':>9}{'worst':>9}  answers, then through")
    for state in STATES:
        put(place, state, seconds + 600)
        asking = Asking(place, rate, seconds)
        asking.run()
        place.crew.heal()
        began = time.monotonic()
        parts.until(lambda: is_through(place), 60)
        told = f"{dict(asking.statuses)}, {time.monotonic() - began:.1f} s"
        for request, times in asking.times.items():
            p50, worst = statistics.median(times), max(times)
            figures = "".join(f"{1000 * figure:9.1f}" for figure in (p50, p99(times), worst))
            print(
                f"{state:8}{request:18}{figures}  {told if 'POST' in request else ''}", flush=True
            )
            is_good &= p99(times) <= GOALS[request]
        is_good &= set(asking.statuses) == {202}
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.brokerless", description=__doc__)
    parser.add_argument("--rate", type=float, default=50, help="of each request, a second")
    parser.add_argument("--seconds", type=float, default=20, help="for each state of Redis")
    parser.add_argument("--database", choices=("mariadb", "sqlite"), default="mariadb")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Place(Path(folder), OURS, given.database) as place,
    ):
        sys.exit(0 if measure(place, given.rate, given.seconds) else 1)


if __name__ == "__main__":
    main()
