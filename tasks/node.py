"""A worker's life: lean without flags, its own connections in each child, and a sign of life."""

import os
import sys
from typing import Any

import uuid_utils
from celery import Celery, signals
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


def prepare(celery: Celery) -> None:
    """Has `celery worker` run the lean worker, and ties its life to ours."""
    quart_app = celery.quart_app
    celery.Worker = celery.subclass_with_self(LeanWorker)
    keep = {"weak": False}
    signals.worker_init.connect(lambda **_: check(quart_app), **keep)
    signals.worker_process_init.connect(lambda **_: _forked(quart_app), **keep)
    signals.worker_ready.connect(lambda sender, **_: _ready(quart_app, sender), **keep)
    signals.worker_shutdown.connect(lambda sender, **_: _stopped(quart_app, sender), **keep)


def check(app: Quart) -> None:
    """Ends the process with one line when a part it cannot work without is missing."""
    try:
        if app.config["EMBEDDED_REDIS"]:
            app.extensions["publisher"].ping()
        migrations.ensure(app.extensions["db"])
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
