"""A job followed on a terminal: lines for what happens, and a bar for how far it is."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import click
from quart import Quart
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlalchemy.orm import Session

from quart_app import db, events, jobs, why
from quart_app.cli.terminal import printable, see
from quart_app.events import Frame
from quart_app.models import Job, JobState

T = TypeVar("T")

_LOOK_EVERY = 0.25
_QUIET = 3.0  # after which a job that does not run is asked why
_EXITS = {JobState.SUCCEEDED: 0, JobState.FAILED: 1, JobState.CANCELLED: 2}
_STOPPED = 130  # as a shell says that Ctrl-C ended a command


class Screen(Protocol):
    """Where it is shown."""

    def say(self, line: str) -> None: ...
    def step(self, job: Job) -> None:
        """Shows the job's newest progress."""


def follow(app: Quart, job_id: str, *, err: bool = False) -> int:
    """Shows it until it has ended; the exit code of its end, or of a Ctrl-C."""
    quiet = _Quiet(app, job_id)
    try:
        with _screen(err) as screen:
            for job, frames in _news_of(app, job_id):
                for frame in frames:
                    if events.is_last(frame):
                        screen.step(job)
                    for line in _lines(frame):
                        screen.say(line)
                screen.step(job)
                if reason := quiet.reason(bool(frames) or job.state is JobState.RUNNING):
                    screen.say(f"{'':19}  {'waits':<9}  {printable(reason)}")
    except KeyboardInterrupt:
        click.echo(f"The job goes on; to see it again: jobs follow {job_id}", err=True)
        return _STOPPED
    return _EXITS[job.state]


class _Quiet:
    """Asks why, when nothing has come of a job for a while."""

    def __init__(self, app: Quart, job_id: str) -> None:
        self._app, self._job_id = app, job_id
        self._since, self._known = time.monotonic(), ""

    def reason(self, is_over: bool) -> str | None:
        """A sentence, unless it was told."""
        now = time.monotonic()
        if is_over:
            self._since = now
        if now <= self._since + _QUIET:
            return None
        before, found = self._known, _look(self._app, why.explain, self._job_id)
        self._since, self._known = now, found.reason
        return None if found.reason == before else found.detail


def _news_of(app: Quart, job_id: str) -> Iterator[tuple[Job, list[Frame]]]:
    """The job and its new frames, again and again until there will be none."""
    job, frames = see(app, _news, job_id, 0)
    yield job, frames
    while job.state not in events.TERMINAL:
        time.sleep(_LOOK_EVERY)
        job, frames = _look(app, _news, job_id, job.last_seq)
        yield job, frames


def _look(app: Quart, verb: Callable[..., T], *args: Any) -> T:
    """As `see`, until the database answers: that it is away says nothing of the job."""
    is_told = False
    while True:
        try:
            return see(app, verb, *args)
        except db.AWAY:
            if not is_told:
                click.echo("The database does not answer just now: waiting for it.", err=True)
            is_told = True
            time.sleep(_LOOK_EVERY)


def _news(session: Session, job_id: str, seen: int) -> tuple[Job, list[Frame]]:
    job = jobs.get(session, job_id)
    # What was written since the job was read is for the next look.
    known = [frame for frame in events.since(session, job_id, seen) if frame["seq"] <= job.last_seq]
    return job, known


def _lines(frame: Frame) -> Iterator[str]:
    """When, what, and what it says of itself; above an error, the way to it."""
    for line in frame.get("traceback", "").splitlines():
        yield f"{'':32}{printable(line)}"
    yield _line(frame)


def _line(frame: Frame) -> str:
    at = frame["at"][:19].replace("T", " ")
    if frame["type"] == "log":
        return f"{at}  {printable(frame['level']):<9}  {printable(frame['message'])}"
    said = frame.get("error") or frame.get("worker") or ""
    if frame.get("result") is not None:
        said = json.dumps(frame["result"], ensure_ascii=False)
    return f"{at}  {frame['state']:<9}  {printable(str(said))}".rstrip()


@contextmanager
def _screen(err: bool) -> Iterator[Screen]:
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        yield _Lines(err)
        return
    # The description is what tasks say: no markup of ours.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        yield _Bar(bar)


class _Lines:
    def __init__(self, err: bool) -> None:
        self._err = err
        self._shown: Any = None

    def say(self, line: str) -> None:
        click.echo(line, err=self._err)

    def step(self, job: Job) -> None:
        if job.progress and job.progress != self._shown:
            self._shown = job.progress
            self.say(f"{'':19}  {'progress':<9}  {_how_far(job.progress)}")


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def say(self, line: str) -> None:
        self._bar.console.print(line, soft_wrap=True)

    def step(self, job: Job) -> None:
        said = job.progress or {}
        self._bar.update(
            self._task, completed=said.get("current") or 0, total=said.get("total"),
            description=printable(said.get("message") or job.state),
        )  # fmt: skip


def _how_far(said: dict[str, Any]) -> str:
    amount = "/".join(f"{said[name]:g}" for name in ("current", "total") if said[name] is not None)
    return f"{amount} {printable(said['message'] or '')}".strip()
