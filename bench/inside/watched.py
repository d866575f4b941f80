"""Serves as `up` does, and notes for how long each callback held the event loop.

Both by the clock and by the processor's time of the thread: on a busy machine the first includes
what others ran meanwhile, and the second leaves out what waited for a disk or a server. SIGUSR1
has it begin anew.
"""

import asyncio
import json
import signal
import sys
import time
from contextvars import Context
from pathlib import Path
from typing import Any

from quart.globals import _cv_request

from asgi import app
from quart_app import binding
from quart_app.serve import serve

_SHOWN = 10
#: Milliseconds; shorter ones are not worth being described.
_LEAST = 1.0


def main(bind: str, file: str) -> None:
    """Writes the longest of each, in milliseconds with what they were, when it is stopped."""
    longest: dict[str, list[tuple[float, str]]] = {"clock": [], "processor": []}
    run = asyncio.Handle._run

    def begin_anew(*_: object) -> None:
        for kept in longest.values():
            kept.clear()

    def watched(handle: Any) -> None:
        clock, processor = time.perf_counter(), time.thread_time()
        what, context = handle._callback, handle._context  # gone when it has been called
        run(handle)
        _note(longest["clock"], time.perf_counter() - clock, what, context)
        _note(longest["processor"], time.thread_time() - processor, what, context)

    signal.signal(signal.SIGUSR1, begin_anew)
    asyncio.Handle._run = watched  # type: ignore[assignment,method-assign]
    asyncio.run(serve(app, binding.listen(bind)))
    Path(file).write_text(json.dumps(longest))


def _note(kept: list[tuple[float, str]], seconds: float, what: Any, context: Context) -> None:
    if (took := seconds * 1000) > _LEAST and (len(kept) < _SHOWN or took > kept[-1][0]):
        kept.append((took, _told(what, context)))
        kept.sort(reverse=True)
        del kept[_SHOWN:]


def _told(what: Any, context: Context) -> str:
    """Whose request it was, and what was called: a task, most often."""
    around = context.get(_cv_request)
    path = f"{around.request.method} {around.request.path} " if around else ""
    return path + repr(getattr(what, "__self__", what))[:160]


if __name__ == "__main__":
    main(*sys.argv[1:])
