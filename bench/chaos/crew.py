"""Processes that are killed, frozen, restarted and never left behind."""

import math
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.parts import ROOT, environment
from quart_app.reaper import Reaper

_POLL = 0.02


@dataclass
class Part:
    """One process to keep running, the leader of a session of its own."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    #: When to start it (again), by the monotonic clock; None while it runs.
    due: float | None = 0.0
    #: Folders that are gone when it starts again.
    forgets: Sequence[Path] = ()

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None

    def children(self) -> list[int]:
        """Its pool, if it has one."""
        try:
            listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(pid) for pid in listed.split()]
        except OSError:
            return []


class Crew(threading.Thread):
    """Starts again what exits, half a second to a second later, as a supervisor would.

    Should this process be killed, the reaper ends all of it.
    """

    def __init__(self, logs: Path) -> None:
        super().__init__(name="crew", daemon=True)
        self.parts: dict[str, Part] = {}
        self._logs = logs
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._frozen: set[int] = set()
        self._undo: list[tuple[float, Callable[[], object]]] = []
        self._sessions: set[int] = set()
        self._reaper = Reaper()
        #: How often each part exited by itself.
        self.exits: dict[str, int] = {}

    def add(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Part:
        part = Part(name, argv, environment(env), self._logs / f"{name}.log")
        with self._lock:
            self.parts[name] = part
            self._launch(part)
        return part

    def kill(
        self,
        name: str,
        *,
        whole: bool = False,
        down: float | None = None,
        forgets: Sequence[Path] = (),
    ) -> bool:
        """SIGKILL for its process, or for its group; it starts again after `down` seconds."""
        part = self.parts[name]
        with self._lock:
            if part.pid is None:
                return False
            part.due = time.monotonic() + (random.uniform(0.5, 1.0) if down is None else down)
            part.forgets = forgets
            if whole:
                os.killpg(part.pid, signal.SIGKILL)
            else:
                os.kill(part.pid, signal.SIGKILL)
        return True

    def kill_child(self, pid: int) -> bool:
        return self._signal(pid, signal.SIGKILL)

    def freeze(self, pids: Sequence[int], seconds: float) -> bool:
        """False when they are all gone or frozen already."""
        with self._lock:
            fresh = [pid for pid in pids if not self.is_frozen(pid)]
            stopped = [pid for pid in fresh if self._signal(pid, signal.SIGSTOP)]
            self._frozen.update(stopped)
        self.after(seconds, partial(self._resume, stopped))
        return bool(stopped)

    def is_frozen(self, pid: int) -> bool:
        return pid in self._frozen

    def after(self, seconds: float, undo: Callable[[], object]) -> None:
        """Calls `undo` then, or when all is to be well again."""
        with self._lock:
            self._undo.append((time.monotonic() + seconds, undo))

    def heal(self) -> None:
        """Undoes what is to be undone later, and starts what is dead."""
        with self._lock:
            self._undo_until(math.inf)
            for part in self.parts.values():
                part.due = part.due and min(part.due, time.monotonic())

    def run(self) -> None:
        while not self._ended.wait(_POLL):
            now = time.monotonic()
            with self._lock:
                self._undo_until(now)
                for part in self.parts.values():
                    self._look(part, now)

    def stop(self) -> None:
        """Ends everything, and all that came of it."""
        self._ended.set()
        if self.is_alive():
            self.join()
        with self._lock:
            for session in self._sessions:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(session, signal.SIGKILL)
                self._reaper.forget(session)
            for part in self.parts.values():
                if part.process:
                    part.process.wait()
        self._reaper.close()

    def _undo_until(self, now: float) -> None:
        due = [undo for when, undo in self._undo if when <= now]
        self._undo = [(when, undo) for when, undo in self._undo if when > now]
        for undo in due:
            undo()

    def _look(self, part: Part, now: float) -> None:
        if part.pid is not None:
            return
        if part.due is None:
            self.exits[part.name] = self.exits.get(part.name, 0) + 1
            part.due = now + random.uniform(0.5, 1.0)
        elif part.due <= now:
            self._launch(part)

    def _launch(self, part: Part) -> None:
        for folder in part.forgets:
            shutil.rmtree(folder, ignore_errors=True)
        part.forgets = ()
        with part.log.open("ab") as output:
            part.process = subprocess.Popen(
                part.argv, env=part.env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        part.due = None
        self._sessions.add(part.process.pid)
        os.write(self._reaper.writing, f"+{part.process.pid} {signal.SIGKILL:d}\n".encode())

    def _resume(self, pids: Sequence[int]) -> None:
        for pid in pids:
            self._frozen.discard(pid)
            self._signal(pid, signal.SIGCONT)

    def _signal(self, pid: int, number: signal.Signals) -> bool:
        """Only for processes of ours: a number may belong to somebody else by now."""
        try:
            if os.getsid(pid) not in self._sessions:
                return False
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True
