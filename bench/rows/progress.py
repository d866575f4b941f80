"""progress: from `self.progress` in a task to the frame at a client, and what the call costs."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from websockets.sync.client import connect

from bench.figures import Goal, Line, percentile
from bench.ours import Site, Web
from bench.run import Run

_EVERY = 0.1
#: Seconds that all jobs are given to begin.
_BEGINNING = 2.0
_ENDS = ("succeeded", "failed", "cancelled")


def measure(run: Run) -> Sequence[Line]:
    site, jobs = Site(run, "progress"), run.pick(100, 10)
    with site.web() as web, site.worker("--pool=threads", f"--concurrency={jobs}"):
        run.warm_up(partial(watch, run, web, jobs))
        rounds = [watch(run, web, jobs) for _ in range(run.rounds)]
    delays, costs = zip(*rounds, strict=True)
    return [
        Line("progress, p50", "ms", [percentile(each, 0.5) for each in delays], Goal("≤", 5)),
        Line("progress, p99", "ms", [percentile(each, 0.99) for each in delays], Goal("≤", 25)),
        Line("progress, a call", "µs", costs, Goal("≤", 100)),
    ]


def watch(run: Run, web: Web, jobs: int) -> tuple[Sequence[float], float]:
    """Milliseconds of each frame while all jobs ran, and the microseconds of a call."""
    times = round((_BEGINNING + run.seconds) / _EVERY)
    job = {"task": "bench.tasks.report", "kwargs": {"times": times, "every": _EVERY}}
    ids = web.call("POST", "/api/jobs/batch", json={"jobs": [job] * jobs})["ids"]
    came: list[tuple[float, float]] = []
    began, ended = 0.0, math.inf
    costs: list[float] = []
    for at, frame in _frames(web, ids):
        if frame["type"] == "progress":
            # The clock is the machine's: it tells the same in the task and here.
            came.append((float(frame["message"]), at))
        elif frame.get("state") == "running":
            began = at
        elif frame.get("state") == "succeeded":
            ended = min(ended, at)
            costs.append(frame["result"])
    delays = [(at - said) * 1000 for said, at in came if began < said < ended - _EVERY]
    run.say(f"{len(delays)} frames in {ended - _EVERY - began:.1f} s")
    return delays, percentile(costs, 0.5)


def _frames(web: Web, ids: Sequence[str]) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Each frame of these jobs with the time it came, until all of them have ended."""
    left = set(ids)
    url = f"{web.url.replace('http', 'ws', 1)}/ws"
    token = {"Authorization": web.headers["Authorization"]}
    with connect(url, additional_headers=token, proxy=None, compression=None) as socket:
        socket.send(json.dumps({"follow": list(ids)}))
        while left:
            text = socket.recv(timeout=60)
            came_at, frame = time.monotonic(), json.loads(text)
            yield came_at, frame
            if frame.get("state") in _ENDS:
                left.discard(frame["job"])
