"""memory: what a web process and a worker's child hold when they have worked and rest."""

from collections.abc import Sequence
from pathlib import Path

from bench.figures import Goal, Line
from bench.ours import NOTHING, Site
from bench.parts import until
from bench.run import Run

#: So that what is imported or made at the first use is there.
_JOBS = 100


def measure(run: Run) -> Sequence[Line]:
    site = Site(run, "memory")
    with site.web() as web, site.worker("--concurrency=2") as worker:
        web.call("POST", "/api/jobs/batch", json={"jobs": [{"task": NOTHING}] * _JOBS})
        web.call("GET", "/api/jobs")
        until(lambda: site.count("state <> 'succeeded'") == 0, 60)
        children = max(megabytes(pid) for pid in _children(worker.pid))
        return [
            Line("memory, web", "MB", [megabytes(web.pid)], Goal("≤", 80)),
            Line("memory, worker's child", "MB", [children], Goal("≤", 70)),
        ]


def megabytes(pid: int) -> float:
    """Resident, what is shared with other processes included."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
