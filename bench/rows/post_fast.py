"""post-fast: the same as post on the faster servers, beside the async queues that keep nothing."""

from collections.abc import Sequence

from bench import webs
from bench.figures import Goal, Line
from bench.rows.post import compare
from bench.run import Run

#: Those that are to be reached; SAQ and Celery are shown beside them.
_FASTEST = ("arq", "taskiq")


def measure(run: Run) -> Sequence[Line]:
    servers = ["uvicorn"] if run.quick else ["uvicorn", "granian"]
    return [line for server in servers for line in _on(run, server)]


def _on(run: Run, server: str) -> Sequence[Line]:
    peers = webs.fastapi(server)
    goals = {peers[queue].name: Goal("≥", 1.0) for queue in _FASTEST}
    shown = [peers[queue] for queue in (_FASTEST if run.quick else peers)]
    return compare(run, f"post-fast, {server}", server, shown, goals)
