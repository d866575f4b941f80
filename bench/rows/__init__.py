"""The rows of the table, each a module with `measure(run)`; in this order."""

from collections.abc import Callable, Mapping, Sequence

from bench.figures import Line
from bench.rows import context, post, post_fast
from bench.run import Run

ROWS: Mapping[str, Callable[[Run], Sequence[Line]]] = {
    "post": post.measure,
    "post-fast": post_fast.measure,
    "context": context.measure,
}
