"""A process of Celery: lean without flags, its own connections in each child, a sign of life."""

import gc
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from importlib import metadata
from typing import Any, NoReturn

from celery import Celery, platforms, signals
from celery.apps.beat import Beat
from celery.apps.worker import Worker
from celery.worker.consumer import Consumer
from quart import Quart
from redis import RedisError
from sqlalchemy.orm import Session

from quart_app import __version__, db, lifelines, migrations, newjobs, nodes, relay, traces
from quart_app.errors import Problem
from quart_app.nodes import Pulse
from tasks import refusals, transport, watch
from tasks.watch import Sweep, Watch

#: Seconds before a worker starts itself again: whatever ended it may not be over yet.
_PAUSE = 1.0

logger = logging.getLogger(__name__)


class SteadyConsumer(Consumer):
    """Looks for a broker that is away every two seconds; Celery's own waits half a minute soon."""

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = partial(conn.ensure_connection, interval_step=0)
        return super().ensure_connected(conn)


class LeanWorker(Worker):
    """Without gossip, mingle and heartbeat: their connections fail first when Redis restarts."""

    def __init__(self, *args: Any, **options: Any) -> None:
        lean = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*args, consumer_cls=SteadyConsumer, **options | lean)

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        # Some losses of Redis end Celery's main process, and nobody may be there to start another.
        if "pulse" in self.app.quart_app.extensions and isinstance(sys.exception(), Exception):
            start_again(self)
        super().stop(in_sighandler, exitcode)


class PatientBeat(Beat):
    """Ends between two looks: Celery's own would stop amid a transaction, and wait for itself."""

    def run(self) -> None:
        check(self.app.quart_app)
        super().run()

    def install_sync_handler(self, service: Any) -> None:
        def stop(*_: Any) -> None:
            platforms.signals.reset("SIGTERM", "SIGINT")  # a second one ends it at once
            service.stop()

        platforms.signals.update(SIGTERM=stop, SIGINT=stop)


def prepare(celery: Celery) -> None:
    """Has `celery worker` and `celery beat` run ours, and ties a worker's life to the app's."""
    quart_app = celery.quart_app
    transport.prepare()
    celery.Worker = celery.subclass_with_self(LeanWorker)
    celery.Beat = celery.subclass_with_self(PatientBeat)
    if not quart_app.config["ALLOW_DIRECT_CALLS"]:
        _forget_canvas(celery)
    keep = {"weak": False}
    # Sent before Celery says what it thinks of a worker that runs as root.
    signals.celeryd_init.connect(lambda **_: check(quart_app), **keep)
    signals.worker_init.connect(lambda **_: _begin(quart_app), **keep)
    signals.worker_process_init.connect(lambda **_: _forked(quart_app), **keep)
    signals.worker_process_shutdown.connect(lambda **_: _child_ends(quart_app), **keep)
    signals.worker_ready.connect(lambda sender, **_: _ready(quart_app, sender), **keep)
    signals.task_unknown.connect(_unknown, **keep)
    signals.worker_shutdown.connect(lambda sender, **_: _stopped(quart_app, sender), **keep)


def check(app: Quart) -> None:
    """Ends the process with one line when a part it cannot work without is missing."""
    try:
        if app.config["EMBEDDED_BROKER"]:
            app.extensions["publisher"].ping()
        migrations.ensure(app.extensions["db"])
        app.extensions["db"].engine.dispose()  # the pool forks: no connection may go along
    except RedisError:
        sys.exit(
            f"No Redis runs in {app.config['VAR_DIR']}: start `python3 run.py` in this folder,"
            " or set REDIS_URL."
        )
    except Problem as problem:
        sys.exit(str(problem))


def start_again(worker: Any) -> NoReturn:
    """Becomes a new worker in the same process; what its children ran is given back."""
    logger.critical("This worker starts itself again.")
    children = watch.child_pids(worker)
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in children:  # the new worker knows nothing of them: they would stay zombies
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    time.sleep(_PAUSE)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - as it was started


def _begin(app: Quart) -> None:
    var = app.config["VAR_DIR"]
    try:
        # Kept open: every child that is forked shares the lock.
        app.extensions["lifeline"] = lifelines.hold(var, app.extensions["boot"])
    except OSError as error:
        lifelines.no_folder(var, error)
    refusals.begin()
    gc.freeze()  # what all children share stays shared: no collector writes to it


def _forked(app: Quart) -> None:
    app.extensions["db"].forget_connections()
    app.extensions["publisher"].forget_connections()
    app.extensions["reporter"].forget()
    app.extensions.pop("pulse", None)


def _child_ends(app: Quart) -> None:
    app.extensions["publisher"].close()
    traces.flush()


def _forget_canvas(celery: Celery) -> None:
    """Celery's own tasks call others with what stands in a message, past the ledger."""
    for name in [name for name in celery.tasks if name.startswith("celery.")]:
        celery.tasks.unregister(name)


def _ready(app: Quart, consumer: Any) -> None:
    worker, boot = consumer.controller, app.extensions["boot"]
    queues = sorted(worker.app.amqp.queues.consume_from)
    name = f"{worker.hostname}:{os.getpid()}"
    info = {
        "hostname": worker.hostname,
        "tasks": list(newjobs.tasks_of(worker.app)),
        "version": __version__,
        "celery": metadata.version("celery"),
        "pid": os.getpid(),
        "pool": worker.pool_cls.__module__.rpartition(".")[2],
        "concurrency": watch.at_once(worker),
        "queues": queues,
    }
    watching, database = Watch(worker, queues), db.beside_forks(app)
    if worker.hub:
        Sweep(worker.hub)

    def say(session: Session) -> None:
        starved = watching.starved()
        now = {"starved": round(starved), "refused": refusals.count()}
        nodes.seen(session, name, "worker", boot, info | now)
        watching.end_stubborn(session)
        if starved > watch.MOST_STARVED:
            logger.critical("No message came for %.0f s, though some wait.", starved)
            start_again(worker)

    def glance() -> None:
        watching.glance()
        relay.see_to_ended_nodes(database)  # no other part may run on this machine

    worker.leave = lambda session: nodes.gone(session, name, boot)
    app.extensions["pulse"] = pulse = Pulse(app, say, glance)
    pulse.start()


def _unknown(**message: Any) -> None:
    refusals.unknown(message["id"], message["name"])


def _stopped(app: Quart, worker: Any) -> None:
    if pulse := app.extensions.get("pulse"):
        pulse.stop()
        with app.extensions["db"].session() as session:
            worker.leave(session)
