"""A part of `up` and its process: started so that nothing can be left of it, and heard by lines."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from quart_app.reaper import Reaper

_LONGEST_LINE = 4 * 1024 * 1024
# A part must not be able to move the cursor or to forge another part's line.
_CONTROLS = {n: f"\\x{n:02x}" for n in (*range(9), *range(10, 32), *range(127, 160))}

# The shell reports its process group before it becomes the part, and holds the reaper's pipe open
# until it has: there is no moment in which a part lives that the reaper does not know.
_LAUNCH = 'echo "+$$ {first:d}" >&0; exec "$@" </dev/null'


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process to run. Times are seconds.

    `grace` lies between SIGTERM and SIGKILL; a `gentle` part gets SIGTERM and two seconds also
    when the supervisor itself was killed, any other SIGKILL; log lines that contain one of the
    `quiet` texts are left out.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    patience: float = 30.0
    grace: float = 10.0
    pass_fds: Sequence[int] = ()
    quiet: Sequence[str] = ()
    gentle: bool = False


class Child:
    """One process of a part, what it prints and what it leaves."""

    def __init__(self, part: Part, reaper: Reaper, show: Callable[[str], object]) -> None:
        self.part, self._reaper, self._show = part, reaper, show
        self._exited, self._silent = asyncio.Event(), asyncio.Event()
        self._unfinished = b""
        self._output, output = os.pipe()
        try:
            self.process = self._launch(output)
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(output)
        asyncio.get_running_loop().add_reader(self._output, self._read)

    @property
    def first_signal(self) -> signal.Signals:
        """What it gets when the supervisor was killed."""
        return signal.SIGTERM if self.part.gentle else signal.SIGKILL

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def look(self) -> None:
        """To be called when a process of ours may have ended."""
        if not self.runs:
            self._exited.set()

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        if self.runs:
            os.killpg(self.process.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """How it ended, in words; by then nothing of it is left."""
        await self._exited.wait()
        with suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reaper.forget(self.process.pid)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._silent.wait(), 0.5)
        self._close()
        return _how(self.process.returncode)

    def _launch(self, output: int) -> subprocess.Popen[bytes]:
        launch = _LAUNCH.format(first=self.first_signal)
        return subprocess.Popen(  # noqa: S603  # the caller's own words, as a list
            ["/bin/sh", "-c", launch, self.part.name, *self.part.argv],
            stdin=self._reaper.writing,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.part.env},
            pass_fds=self.part.pass_fds,
            start_new_session=True,
        )

    def _read(self) -> None:
        data = os.read(self._output, 65536)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        if len(self._unfinished) > _LONGEST_LINE:
            lines.append(self._unfinished)
            self._unfinished = b""
        for line in lines:
            self._tell(line)
        if not data:
            self._close()

    def _close(self) -> None:
        if self._silent.is_set():
            return
        self._silent.set()
        asyncio.get_running_loop().remove_reader(self._output)
        os.close(self._output)
        if self._unfinished:
            self._tell(self._unfinished)

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip().translate(_CONTROLS)
        if text and not any(word in text for word in self.part.quiet):
            self._show(text)


def _how(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"
