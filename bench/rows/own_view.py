"""own-view: what submitting costs a view in its own transaction, beside one INSERT."""

from collections.abc import Sequence

from bench.figures import Goal, Line
from bench.ours import Site
from bench.rows.post import emptied
from bench.run import Run


def measure(run: Run) -> Sequence[Line]:
    site = Site(run, "own_view", env={"MAX_QUEUE_DEPTH": "10000000"})
    with emptied(site.redis_url):
        found = run.inside(
            "own_view", site.settings, rounds=run.rounds, seconds=min(run.seconds, 1.0)
        )
    return [
        Line("own-view", "µs", found["submit"], Goal("≤", 1.3), "INSERT alone", found["insert"])
    ]
