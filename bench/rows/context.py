"""context: what the application's context costs each task."""

from collections.abc import Sequence

from bench.figures import Goal, Line
from bench.run import Run


def measure(run: Run) -> Sequence[Line]:
    env = {"VAR_DIR": str(run.folder / "var")}
    found = run.inside("context", env, rounds=run.rounds, calls=run.pick(20_000, 2_000))
    return [Line("context", "µs", found, Goal("≤", 40))]
