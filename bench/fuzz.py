"""Whatever a client may send: Schemathesis against /openapi.json, with a token of each role.

.venv/bin/python -m bench.fuzz [--minutes 10] [--database mariadb] [--role viewer …]

Redis, the database, the web, a worker and beat are its own, on ports of their own. Schemathesis
comes from PATH, or for this one run from `uvx`. Exits 1 when it found something, or when the log of
the web process holds an error. What it is not to take for one is in fuzz.toml.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from quart_app.models import Role
from tests import real

DATABASES = ["sqlite", "mariadb"]
#: Of each role in turn; what one of them leaves behind the next one meets.
ROLES = [role.value for role in Role]
#: What a log of the web process has no reason to say.
_FAULTS = ("Traceback", " ERROR ", "] ERROR", ": ERROR/", "never awaited", "never retrieved")


@dataclass(frozen=True)
class Site:
    """A web process with all that it needs."""

    url: str
    env: dict[str, str]
    log: Path

    def token(self, role: str) -> str:
        argv = real.python("quart", "--app", "asgi", "tokens", "create", role, "--role", role)
        env = real.environment(self.env)
        return subprocess.run(
            argv, env=env, cwd=real.ROOT, capture_output=True, text=True, check=True
        ).stdout.split()[-1]

    def faults(self) -> list[str]:
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(fault in line for fault in _FAULTS)]


@contextmanager
def site(folder: Path, database: str) -> Iterator[Site]:
    with ExitStack() as stack:
        redis_url = stack.enter_context(real.redis_server(folder))
        url = f"sqlite:///{folder}/fuzz.sqlite3"
        if database == "mariadb":
            url = stack.enter_context(real.mariadb(real.mariadbd() or "", folder))
        env = {
            "VAR_DIR": str(folder / "var"),
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "SECRET_KEY": "of a bench",
        }
        migrate = real.python("quart", "--app", "asgi", "migrate")
        subprocess.run(migrate, env=real.environment(env), cwd=real.ROOT, check=True)
        bind, log = f"127.0.0.1:{real.free_port()}", folder / "web.log"
        serve = real.python("quart", "--app", "asgi", "serve", "--bind", bind)
        stack.enter_context(real.process(serve, env, log))
        beat = real.python("celery", "-A", "tasks", "beat")
        stack.enter_context(real.process(beat, env, folder / "beat.log"))
        stack.enter_context(real.worker(env, folder / "worker.log", "--concurrency=1"))
        real.until(lambda: answers(f"http://{bind}/readyz"), 60)
        yield Site(f"http://{bind}", env, log)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def schemathesis() -> list[str]:
    if found := shutil.which("schemathesis"):
        return [found]
    return [shutil.which("uvx") or str(Path(sys.executable).with_name("uvx")), "schemathesis"]


def found_nothing(site: Site, role: str, minutes: float, more: Sequence[str]) -> bool:
    """Runs Schemathesis, which says what it found, for so long; whether that was nothing."""
    rules = Path(__file__).with_suffix(".toml")
    argv = [*schemathesis(), f"--config-file={rules}", "run", f"{site.url}/openapi.json"]
    argv += ["--checks=all", "--workers=1", "--continue-on-failure", "--warnings=off"]
    argv += [f"--max-time={round(minutes * 60)}"]
    argv += ["--header", f"Authorization:Bearer {site.token(role)}", *more]
    plain = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(argv, env=plain, cwd=site.log.parent, check=False)
    faults = site.faults()
    print(f"{role}: exit {done.returncode}, {len(faults)} faults in the log of the web process")
    print(*faults[:10], sep="\n")
    return done.returncode == 0 and not faults and answers(f"{site.url}/healthz")


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=2.0, help="for each role")
    words.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    words.add_argument("--role", choices=ROLES, action="append", help="may be repeated")
    words.add_argument("more", nargs="*", help="options of Schemathesis, after --")
    given = words.parse_args()
    roles = given.role or ROLES
    with tempfile.TemporaryDirectory() as name, site(Path(name), given.database) as it:
        outcomes = [found_nothing(it, role, given.minutes, given.more) for role in roles]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
