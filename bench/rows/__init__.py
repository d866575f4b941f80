"""The rows of the table, each a module with `measure(run)`; in this order."""

from collections.abc import Callable, Mapping, Sequence

from bench.figures import Line
from bench.rows import batch, context, own_view, post, post_fast, worker
from bench.run import Run

ROWS: Mapping[str, Callable[[Run], Sequence[Line]]] = {
    "post": post.measure,
    "post-fast": post_fast.measure,
    "batch": batch.measure,
    "own-view": own_view.measure,
    "worker": worker.measure,
    "context": context.measure,
}
