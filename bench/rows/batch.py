"""batch: a thousand durable jobs in each request."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench.figures import Goal, Line
from bench.ours import NOTHING, Site, Web
from bench.rows.post import emptied
from bench.run import Run

SIZE = 1_000
#: One is read and checked while another is written.
_AT_ONCE = 2
_BODY = json.dumps({"jobs": [{"task": NOTHING}] * SIZE})


def measure(run: Run) -> Sequence[Line]:
    site = Site(run, "batch")
    batches = run.pick(20, 4)
    with site.web() as web:
        run.warm_up(partial(_round, run, site, web, _AT_ONCE))
        rounds = [_round(run, site, web, batches) for _ in range(run.rounds)]
    accepted, published = zip(*rounds, strict=True)
    return [
        Line("batch, accepted", "jobs/s", accepted, Goal("≥", 10_000)),
        Line("batch, published", "jobs/s", published, Goal("≥", 10_000)),
    ]


def _round(run: Run, site: Site, web: Web, batches: int) -> tuple[float, float]:
    """Jobs a second until the last answer, and until the last of them was with the broker."""
    jobs = batches * SIZE
    with emptied(site.redis_url):
        began = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as clients:
            list(clients.map(lambda _: submit(web), range(batches)))
        accepted = jobs / (time.monotonic() - began)
        site.wait_until_published()
        published = jobs / (time.monotonic() - began)
    assert site.count() == jobs, "each id is a row"
    site.empty()
    run.say(f"{accepted:,.0f}/s accepted, {published:,.0f}/s published")
    return accepted, published


def submit(web: Web) -> Sequence[str]:
    """The ids of one batch."""
    ids: Sequence[str] = web.call("POST", "/api/jobs/batch", body=_BODY)["ids"]
    return ids
