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
from pathlib import Path

from asgi import app
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

    def watched(handle: asyncio.Handle) -> None:
        clock, processor = time.perf_counter(), time.thread_time()
        what = getattr(handle, "_callback", None)  # gone when it has been called
        run(handle)
        _note(longest["clock"], time.perf_counter() - clock, what)
        _note(longest["processor"], time.thread_time() - processor, what)

    signal.signal(signal.SIGUSR1, begin_anew)
    asyncio.Handle._run = watched  # type: ignore[assignment,method-assign]
    asyncio.run(serve(app, bind))
    Path(file).write_text(json.dumps(longest))


def _note(kept: list[tuple[float, str]], seconds: float, what: object) -> None:
    if (took := seconds * 1000) > _LEAST and (len(kept) < _SHOWN or took > kept[-1][0]):
        kept.append((took, repr(getattr(what, "__self__", what))[:300]))
        kept.sort(reverse=True)
        del kept[_SHOWN:]


if __name__ == "__main__":
    main(*sys.argv[1:])
