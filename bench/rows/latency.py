"""latency: from a job's acceptance to its start where nothing else is to do."""

import time
from collections.abc import Sequence
from functools import partial

from bench.figures import Goal, Line, percentile
from bench.ours import NOTHING, Site, Web
from bench.parts import until
from bench.run import Run

_BETWEEN = 0.02
_TOOK = "SELECT TIMESTAMPDIFF(MICROSECOND, accepted_at, started_at) / 1000 FROM jobs"


def measure(run: Run) -> Sequence[Line]:
    site, jobs = Site(run, "latency"), run.pick(100, 20)
    with site.web() as web, site.worker("--concurrency=2"):
        run.warm_up(partial(_round, site, web, 10))
        rounds = [_round(site, web, jobs) for _ in range(run.rounds)]
    return [
        Line("latency, p50", "ms", [percentile(took, 0.5) for took in rounds], Goal("≤", 10)),
        Line("latency, p99", "ms", [percentile(took, 0.99) for took in rounds], Goal("≤", 40)),
    ]


def _round(site: Site, web: Web, jobs: int) -> Sequence[float]:
    """Milliseconds by the database's clock, of jobs that come when the last one is over."""
    for _ in range(jobs):
        web.call("POST", "/api/jobs", json={"task": NOTHING})
        until(lambda: site.count("state <> 'succeeded'") == 0)
        time.sleep(_BETWEEN)
    took = [float(row[0]) for row in site.query(_TOOK)]
    site.empty()
    return took
