"""Virtual environments for the peers, made when they are first asked for.

They are two, since some of them want a redis-py that the others no longer take.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import click

from bench.parts import ROOT

USUAL, OLDER_REDIS = "requirements-peers.txt", "requirements-peers-redis5.txt"


@cache
def interpreter(requirements: str = USUAL) -> Path:
    """The Python of a virtual environment with exactly these, which is made when it is not so."""
    wanted = ROOT / "bench" / requirements
    folder = ROOT / f".venv-{wanted.stem.removeprefix('requirements-')}"
    python, installed = folder / "bin/python", folder / ".installed"
    if not (installed.exists() and installed.read_text() == wanted.read_text()):
        print(f"Setting up {folder.name} ...", file=sys.stderr)
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        _uv("pip", "sync", "--compile-bytecode", "--python", str(python), str(wanted))
        installed.write_text(wanted.read_text())
    return python


def packages() -> Path:
    """Where the usual ones are installed."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return interpreter().parents[1] / "lib" / version / "site-packages"


def _uv(*words: str) -> None:
    argv = [sys.executable, "-m", "uv", "--quiet", *words]
    done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False, env=os.environ)
    if done.returncode:
        raise click.ClickException(f"the peers cannot be installed: {done.stderr.strip()}")
