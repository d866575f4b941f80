"""A process of Celery: lean without flags, its own connections in each child, a sign of life."""

import os
import sys
from typing import Any

import uuid_utils
from celery import Celery, platforms, signals
from celery.apps.beat import Beat
from celery.apps.worker import Worker
from quart import Quart
from redis import RedisError

from quart_app import migrations, nodes
from quart_app.errors import Problem
from quart_app.nodes import Pulse


class LeanWorker(Worker):
    """Without gossip, mingle and heartbeat: their connections fail first when Redis restarts."""

    def __init__(self, *args: Any, **options: Any) -> None:
        lean = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*args, **options | lean)


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
    celery.Worker = celery.subclass_with_self(LeanWorker)
    celery.Beat = celery.subclass_with_self(PatientBeat)
    if not quart_app.config["ALLOW_DIRECT_CALLS"]:
        _forget_canvas(celery)
    keep = {"weak": False}
    signals.worker_init.connect(lambda **_: check(quart_app), **keep)
    signals.worker_process_init.connect(lambda **_: _forked(quart_app), **keep)
    signals.worker_process_shutdown.connect(lambda **_: _child_ends(quart_app), **keep)
    signals.worker_ready.connect(lambda sender, **_: _ready(quart_app, sender), **keep)
    signals.worker_shutdown.connect(lambda sender, **_: _stopped(quart_app, sender), **keep)


def check(app: Quart) -> None:
    """Ends the process with one line when a part it cannot work without is missing."""
    try:
        if app.config["EMBEDDED_REDIS"]:
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


def _forked(app: Quart) -> None:
    app.extensions["db"].forget_connections()
    app.extensions["publisher"].forget_connections()
    app.extensions["reporter"].forget()


def _child_ends(app: Quart) -> None:
    app.extensions["publisher"].close()


def _forget_canvas(celery: Celery) -> None:
    """Celery's own tasks call others with what stands in a message, past the ledger."""
    for name in [name for name in celery.tasks if name.startswith("celery.")]:
        celery.tasks.unregister(name)


def _ready(app: Quart, consumer: Any) -> None:
    worker = consumer.controller
    worker.boot = str(uuid_utils.uuid7())
    name = f"{worker.hostname}:{os.getpid()}"
    info = {
        "pid": os.getpid(),
        "pool": worker.pool_cls.__module__.rpartition(".")[2],
        "concurrency": worker.concurrency,
        "queues": sorted(worker.app.amqp.queues.consume_from),
    }
    worker.leave = lambda session: nodes.gone(session, name, worker.boot)
    worker.pulse = Pulse(
        app, lambda session: nodes.seen(session, name, "worker", worker.boot, info)
    )
    worker.pulse.start()


def _stopped(app: Quart, worker: Any) -> None:
    if not hasattr(worker, "pulse"):
        return
    worker.pulse.stop()
    with app.extensions["db"].session() as session:
        worker.leave(session)
