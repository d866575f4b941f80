"""One run of the bench: its options, its folder, and its own servers, started when asked for."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import Popen
from typing import Any

import click

from bench.parts import ROOT, environment, mariadbd, python, until
from bench.side import Side, interleaved
from tests import real


@dataclass
class Run:
    """`seconds` is how long one figure takes; `quick` asks for the least that shows it works."""

    rounds: int = 5
    seconds: float = 2.0
    quick: bool = False
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *about: Any) -> None:
        self._stack.__exit__(*about)

    def measure(self, sides: Sequence[Side]) -> Mapping[str, Sequence[float]]:
        return interleaved(sides, self.rounds, self.say)

    def warm_up(self, measure: Callable[[], object]) -> None:
        """What is made at the first use is made, where figures count."""
        if not self.quick:
            measure()

    def pick(self, usual: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else usual

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    @cached_property
    def folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="qm-bench-")))

    @cached_property
    def redis(self) -> str:
        """A Redis that keeps nothing on disk; its URL, without the number of a database."""
        url = self._stack.enter_context(real.redis_server(self._sub("redis")))
        return url.rpartition("/")[0]

    @cached_property
    def mariadb(self) -> str:
        """A MariaDB as it comes, its log flushed at each commit; its URL, without a database."""
        server = mariadbd()
        if server is None:
            raise click.ClickException("no MariaDB server here: apt install mariadb-server")
        url = self._stack.enter_context(real.mariadb(server, self._sub("mariadb")))
        return url.rpartition("/")[0]

    @contextmanager
    def process(
        self, name: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path = ROOT
    ) -> Iterator[Popen[bytes]]:
        """A process in a group of its own, its log in `folder`, ended with the block."""
        with real.process(argv, _COMPILED | dict(env), self.log(name), cwd) as process:
            yield process

    def inside(self, name: str, env: Mapping[str, str], **options: Any) -> Any:
        """What `figures(**options)` of bench/inside/NAME.py returns, with these settings."""
        argv = python("bench.inside", name, json.dumps(options))
        done = subprocess.run(
            argv, cwd=ROOT, env=environment(_COMPILED | dict(env)), stdout=subprocess.PIPE,
            text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def wait_for(self, name: str, process: Popen[bytes], condition: Any) -> None:
        """Until it is true; raises with the end of the log when the process ends before."""

        def is_there() -> bool:
            if process.poll() is not None:
                raise click.ClickException(f"{name} ended:\n{self.log(name).read_text()[-2000:]}")
            return bool(condition())

        until(is_there, 60)

    def _sub(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made


#: Programs start from bytecode, as they do when they are installed.
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
