"""`up`: the parts of one machine, what each is started with, and when it is ready."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import socket

from quart import Quart

from quart_app import actors, binding, db, migrations, nodes, tokens, valkey
from quart_app.children import Part
from quart_app.errors import NotFound, Problem
from quart_app.models import Role
from quart_app.supervisor import supervise
from quart_app.voice import Voice

_FIRST_TOKEN = "admin"  # noqa: S105 - its name
_ROOT = str(Path(__file__).parents[1])
_PATHS = filter(None, (_ROOT, os.environ.get("PYTHONPATH")))
# On a machine of one's own, or in a container, being root is nothing to be warned of each time.
_WARNINGS = filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:You're running the worker"))
_ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(_PATHS), "PYTHONWARNINGS": ",".join(_WARNINGS)}


def run(app: Quart, bind: str, workers: int, concurrency: int | None) -> int:
    """Runs everything until Ctrl-C and returns the exit code.

    Raises valkey.Locked, valkey.ServerMissing or binding.BadAddress.
    """
    database: db.Database = app.extensions["db"]
    with valkey.lock(app.config["VAR_DIR"]), binding.listen(bind) as sock, Voice() as voice:
        migrations.upgrade(database)
        parts = stages(app, sock, workers, concurrency)

        async def greet() -> None:
            greeted = partial(greeting, database, sock)
            try:
                voice.say(await asyncio.to_thread(actors.at_terminal, app, greeted))
            except (*db.AWAY, Problem) as error:  # all parts are up: that is no reason to end them
                voice.say(f"Quartermaster is ready: {binding.address(sock)}/ ({error})")

        names = ", ".join(part.name for stage in parts for part in stage)
        voice.say(f"Starting {names}; what is kept goes to {app.config['VAR_DIR']}")
        return asyncio.run(supervise(parts, on_ready=greet, say=voice.say))


def greeting(database: db.Database, sock: socket) -> str:
    """What is said when all is ready: the console and the way in.

    On loopback that is a link for one use, and the first time a token; elsewhere neither, since
    what is printed there may be read by others.
    """
    address = binding.address(sock)
    lines = [f"Quartermaster is ready: {address}/"]
    if binding.is_loopback(sock):
        lines += _way_in(database, address)
    if len(lines) == 1:
        make = "`python3 run.py tokens create NAME --role admin`"
        lines.append(f"Sign in with an API token: {make} makes one.")
    if not binding.is_loopback(sock):
        lines.append("From other machines the console needs HTTPS: put a proxy in front.")
    return "\n".join(["", *lines, "Ctrl-C stops everything.", ""])


def _way_in(database: db.Database, address: str) -> list[str]:
    with database.session() as session:
        secret = None
        if not tokens.everyone(session):
            secret = tokens.create(session, _FIRST_TOKEN, Role.ADMIN)
        try:
            code = tokens.make_link(session, _FIRST_TOKEN)
        except NotFound:  # revoked, or at its end
            return []
    link = f"Sign in, once and within 15 minutes: {address}/sign-in/{code}"
    return [link, *([f"API token, shown only this time: {secret}"] if secret else [])]


def stages(app: Quart, sock: socket, workers: int, concurrency: int | None) -> list[list[Part]]:
    """What starts after what."""
    with app.extensions["db"].session(reading=True) as session:
        since = db.clock(session)
    webs = [_web(app, sock, number) for number in range(1, workers + 1)]
    working = [*webs, _worker(app, concurrency, since), _beat(app, since)]
    return [[_valkey(app)], working] if app.config["EMBEDDED_REDIS"] else [working]


def _valkey(app: Quart) -> Part:
    var: Path = app.config["VAR_DIR"]
    return Part(
        name="valkey",
        argv=valkey.command(var),
        ready=lambda: valkey.ready(var),
        quiet=valkey.QUIET,
        gentle=True,
    )


def _web(app: Quart, sock: socket, number: int) -> Part:
    hosts = dict.fromkeys([*app.config["ALLOWED_HOSTS"], binding.host(sock)])
    return Part(
        name="web" if number == 1 else f"web {number}",
        argv=_python("quart", "--app", "asgi", "serve", "--fd", str(sock.fileno())),
        env=_ENVIRONMENT | {"ALLOWED_HOSTS": ",".join(hosts)},
        ready=lambda: asyncio.to_thread(_answers, *binding.reached_at(sock)),
        pass_fds=[sock.fileno()],
        quiet=["Running on http"],
    )


def _worker(app: Quart, concurrency: int | None, since: datetime) -> Part:
    # Two instances on one machine may share a database: their workers' names must differ.
    var = hashlib.sha256(os.fsencode(app.config["VAR_DIR"])).hexdigest()[:8]
    size = [f"--concurrency={concurrency}"] if concurrency else []
    return Part(
        name="worker",
        argv=_celery("worker", f"--hostname={var}@%h", *size),
        env=_ENVIRONMENT,
        ready=_heard_of(app, "worker", f"{var}@", since),
        grace=20,
    )


def _beat(app: Quart, since: datetime) -> Part:
    ready = _heard_of(app, "beat", "", since)
    return Part(name="beat", argv=_celery("beat"), env=_ENVIRONMENT, ready=ready)


def _celery(word: str, *words: str) -> list[str]:
    return _python("celery", "-A", "tasks", "--quiet", word, "--loglevel=info", *words)


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def _answers(host: str, port: int) -> bool:
    # No urlopen, which would ask the proxy of the environment.
    with closing(HTTPConnection(host, port, timeout=1)) as connection:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status < 500
        except (OSError, HTTPException):
            return False


def _heard_of(app: Quart, kind: str, name: str, since: datetime) -> Callable[[], Awaitable[bool]]:
    database: db.Database = app.extensions["db"]

    def look() -> bool:
        try:
            with database.session(reading=True) as session:
                there = nodes.online(session, kind)
        except db.AWAY:  # it may be back any moment
            return False
        return any(node.name.startswith(name) and node.started_at >= since for node in there)

    return lambda: asyncio.to_thread(look)
