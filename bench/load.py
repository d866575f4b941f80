"""Load on a web server: wrk's, and what it counted."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

_SCRIPT = """\
wrk.method = {method}
wrk.body = {body}
done = function(summary, latency, requests)
  io.write(string.format('{{"requests": %d, "refused": %d, "failed": %d, "us": %d}}\\n',
    summary.requests, summary.errors.status,
    summary.errors.connect + summary.errors.write + summary.errors.timeout, summary.duration))
end
"""


@dataclass(frozen=True)
class Request:
    """The one request that is repeated."""

    url: str
    method: str = "POST"
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """How many were answered well, and in how many seconds."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def put(request: Request, folder: Path, *, connections: int, seconds: float) -> Answered:
    """Repeats the request over so many connections; raises unless every answer was good."""
    if not shutil.which("wrk"):
        raise click.ClickException("wrk puts the load on, and is not here: apt install wrk")
    script = folder / "load.lua"
    script.write_text(
        _SCRIPT.format(method=json.dumps(request.method), body=json.dumps(request.body))
    )
    words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    for name, value in request.headers.items():
        words += ["-H", f"{name}: {value}"]
    argv = [*words, "-s", str(script), request.url]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    counted = json.loads(done.stdout.splitlines()[-1])
    if counted["refused"] or counted["failed"] or not counted["requests"]:
        raise click.ClickException(f"{request.url} did not answer well: {done.stdout}")
    return Answered(counted["requests"], counted["us"] / 1e6)
