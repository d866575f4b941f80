"""loop: for how long one piece of our code holds the event loop under all kinds of load."""

import json
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench import load
from bench.figures import Goal, Line
from bench.ours import Site, Web
from bench.parts import python
from bench.rows import batch, post, progress
from bench.run import Run

_READ = ("/api/jobs?limit=500", "/api/queues", "/metrics", "/openapi.json", "/jobs")


def measure(run: Run) -> Sequence[Line]:
    site = Site(run, "event_loop")
    rounds = [_round(run, site, number) for number in range(run.rounds)]
    clock, processor = zip(*rounds, strict=True)
    return [
        Line("loop, held by the clock", "ms", clock, Goal("≤", 20)),
        Line("loop, held on the processor", "ms", processor, Goal("≤", 20)),
    ]


def _round(run: Run, site: Site, number: int) -> tuple[float, float]:
    file = run.folder / f"held-{number}.json"
    with site.web_by(partial(_watched, file), "watched") as web:
        _loads(run, site, web, 1)  # what is made at the first use is made
        os.kill(web.pid, signal.SIGUSR1)
        _loads(run, site, web, run.pick(5, 1))
    longest = json.loads(file.read_text())
    for kind, kept in longest.items():
        for took, what in kept[:3]:
            run.say(f"{kind}: {took:.1f} ms {what}")
    clock, processor = (kept[0][0] if kept else 0.0 for kept in longest.values())
    return clock, processor


def _loads(run: Run, site: Site, web: Web, batches: int) -> None:
    jobs = run.pick(100, 10)
    with post.emptied(site.redis_url):
        load.put(web.submit(), run.folder, connections=post.CONNECTIONS, seconds=1)
        for _ in range(batches):
            batch.submit(web)
        for path in _READ:
            web.read(path)
    site.empty()
    with site.worker("--pool=threads", f"--concurrency={jobs}"):
        progress.watch(run, web, jobs)
    site.empty()


def _watched(file: Path, port: int) -> list[str]:
    return python("bench.inside.watched", f"127.0.0.1:{port}", str(file))
