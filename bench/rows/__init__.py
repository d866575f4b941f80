"""The rows of the table, each a module with `measure(run)`; in this order."""

from collections.abc import Callable, Mapping, Sequence

from bench.figures import Line
from bench.rows import (
    batch,
    context,
    growth,
    latency,
    loop,
    memory,
    own_view,
    post,
    post_fast,
    progress,
    sockets,
    start,
    worker,
)
from bench.run import Run

ROWS: Mapping[str, Callable[[Run], Sequence[Line]]] = {
    "post": post.measure,
    "post-fast": post_fast.measure,
    "batch": batch.measure,
    "own-view": own_view.measure,
    "worker": worker.measure,
    "context": context.measure,
    "latency": latency.measure,
    "progress": progress.measure,
    "sockets": sockets.measure,
    "loop": loop.measure,
    "start": start.measure,
    "memory": memory.measure,
    "growth": growth.measure,
}
