"""The reaper: a program of its own that ends what the supervisor leaves when it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_PATIENCE = 2.0  # seconds between SIGTERM and SIGKILL, for those that get both


class Reaper:
    """What the supervisor has of it: a pipe on which each process group is reported."""

    def __init__(self) -> None:
        # Its end stays open here too: should it die, no part is hurt by writing to it.
        self._reading, self.writing = os.pipe()
        self._process = self._spawn()

    def look(self, groups: Mapping[int, int]) -> None:
        """Starts it again if it has ended; `groups` are alive, each with its first signal."""
        if self._process.poll() is None:
            return
        for group, number in groups.items():
            self._tell(f"+{group} {number}")
        self._process = self._spawn()

    def forget(self, group: int) -> None:
        """The group's leader has ended: what is left of its session is killed."""
        self._tell(f"-{group}")

    def close(self) -> None:
        os.close(self.writing)
        os.close(self._reading)
        self._process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # nothing of it comes from outside
            [sys.executable, "-I", "-S", __file__],
            stdin=self._reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def _tell(self, line: str) -> None:
        os.write(self.writing, line.encode() + b"\n")


def reap(lines: Iterable[str]) -> None:
    """Reads "+group signal" and "-group"; at the end of its input ends what is still listed."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    first: dict[int, int] = {}
    for line in lines:
        group = int(line[1:].split()[0])
        if line[0] == "+":
            first[group] = int(line.split()[1])
        else:
            first.pop(group, None)
            _kill({group})
    gentle = {group for group in first if first[group] != signal.SIGKILL}
    for group in gentle:
        _attempt(os.killpg, group, first[group])
    _kill(first.keys() - gentle)
    _await_end(gentle)
    _kill(gentle)


def _await_end(groups: set[int]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and any(_attempt(os.killpg, g, 0) is None for g in groups):
        time.sleep(0.02)


def _kill(sessions: set[int]) -> None:
    """Each process of the sessions, those in groups of their own as well."""
    for group in sessions:
        _attempt(os.killpg, group, signal.SIGKILL)
    listed = os.listdir("/proc") if os.path.isdir("/proc/1") else os.popen("ps -Ao pid=")  # noqa: PTH112, PTH208, S605, S607
    for pid in (int(word) for word in listed if word.strip().isdigit()):
        if _attempt(os.getsid, pid) in sessions:
            _attempt(os.kill, pid, signal.SIGKILL)


def _attempt(call: Callable[..., Any], *arguments: int) -> Any:
    try:
        return call(*arguments)
    except OSError:
        return False


if __name__ == "__main__":
    reap(sys.stdin)
