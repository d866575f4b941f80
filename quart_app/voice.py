"""What `up` says: written by a thread, so that a reader who stops reading holds up nothing else."""

import itertools
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType

_MOST_BYTES = 8 * 1024 * 1024  # kept for a slow reader
_PATIENCE = 2.0  # seconds for what is unsaid at the end


class Voice:
    """Says lines on a file descriptor while its `with` block lasts, and in that order."""

    def __init__(self, output: int = 1) -> None:
        self._output = output
        self._lines: deque[bytes] = deque()
        self._size = self._dropped = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="voice", daemon=True)

    def __enter__(self) -> "Voice":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(_PATIENCE)

    def say(self, line: str) -> None:
        """Returns at once; the line is dropped while nobody has read the ones before it."""
        data = line.encode("utf-8", "replace") + b"\n"
        with self._changed:
            if self._size + len(data) > _MOST_BYTES:
                self._dropped += 1
                return
            self._lines.append(data)
            self._size += len(data)
            self._changed.notify()

    def _write_all(self) -> None:
        while data := self._next():
            try:
                self._write(data)
            except OSError:  # nobody listens any more, which is no reason for the parts to end
                self._output = os.open(os.devnull, os.O_WRONLY)

    def _next(self) -> bytes:
        """All that is to be said; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ended)
            data = b"".join(self._lines)
            if self._dropped:
                data += f"({self._dropped} lines were dropped: nobody read them)\n".encode()
            self._lines.clear()
            self._size = self._dropped = 0
            return data

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._output, data) :]
            except BlockingIOError:
                select.select([], [self._output], [])


def prefixes(names: Sequence[str]) -> Iterator[str]:
    """What stands before each line of a part: its name, coloured where a person looks on."""
    width = max(map(len, names), default=0)
    colours = itertools.cycle((36, 33, 32, 35, 34, 31))
    plain = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    for name, colour in zip(names, colours, strict=False):
        prefix = f"{name:<{width}} | "
        yield prefix if plain else f"\x1b[{colour}m{prefix}\x1b[0m"
