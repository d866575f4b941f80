"""Who is running: a row for each worker and each beat, refreshed while it lives."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import uuid_utils
from quart import Quart, current_app
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.celeryext import in_app_context
from quart_app.models import Node
from quart_app.seldom import Seldom

#: Seconds between two signs of life, and after how many of silence a node counts as gone.
EVERY = 3.0
GONE_AFTER = 10.0
#: Seconds without a message for which it is too early to speak of it.
_STARVED = 5
_GLANCE_EVERY = 0.5

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> None:
    app.extensions["boot"] = str(uuid_utils.uuid7())


def holder(pid: int | None = None) -> str:
    """What a process of this node is known by in the jobs it runs: by its pid, or this one."""
    return f"{current_app.extensions['boot']}/{pid or os.getpid()}"


def seen(session: Session, name: str, kind: str, boot: str, info: dict[str, Any]) -> None:
    """Writes that the node is alive; `boot` differs between two lives of it."""
    fresh = {"kind": kind, "boot": boot, "info": info, "seen_at": db.now()}
    known = update(Node).where(Node.name == name, Node.boot == boot).values(fresh)
    if session.execute(known).rowcount == 0:  # type: ignore[attr-defined]
        session.execute(delete(Node).where(Node.name == name))
        session.execute(insert(Node).values(name=name, started_at=db.now(), **fresh))


def gone(session: Session, name: str, boot: str) -> None:
    """The node has stopped, and says so."""
    session.execute(delete(Node).where(Node.name == name, Node.boot == boot))


def forget(session: Session, boot: str) -> None:
    """The node has ended without a word."""
    session.execute(delete(Node).where(Node.boot == boot))


def online(session: Session, kind: str) -> list[Node]:
    alive = select(Node).where(Node.kind == kind, Node.seen_at > db.now(-GONE_AFTER))
    return list(session.scalars(alive.order_by(Node.name)))


def is_starved(node: Node) -> bool:
    """Whether it gets no messages although some wait; such a worker soon starts itself again."""
    return bool(node.info.get("starved", 0) > _STARVED)


class Pulse(threading.Thread):
    """Says every few seconds that this process is alive, until it is stopped.

    It also does what this process has to write down, once the database answers, and calls `glance`
    twice a second.
    """

    def __init__(
        self, app: Quart, say: Callable[[Session], None], glance: Callable[[], None] | None = None
    ) -> None:
        super().__init__(name="pulse", daemon=True)
        self._app, self._database = app, db.beside_forks(app)
        self._say, self._glance = say, glance or (lambda: None)
        self._errands: deque[tuple[Callable[[Session], object], threading.Event]] = deque()
        self._woken = threading.Event()
        self._stopped = False
        self._warnings = Seldom()

    def run(self) -> None:
        beat_at = 0.0
        while not self._stopped:
            self._woken.clear()
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + EVERY
                # Silence is a message too: the node counts as gone.
                self._survive(partial(self._write, self._say))
            self._survive(self._glance)
            while self._errands and self._is_done(self._errands[0][0]):
                self._errands.popleft()[1].set()
            self._woken.wait(_GLANCE_EVERY)

    def ask(self, errand: Callable[[Session], object]) -> threading.Event:
        """Has `errand(session)` done soon, and again until the database takes it; in order.

        The event is set once it has, or once the errand itself has failed.
        """
        done = threading.Event()
        self._errands.append((errand, done))
        self._woken.set()
        return done

    def stop(self) -> None:
        self._stopped = True
        self._woken.set()
        self.join(timeout=EVERY)

    def _is_done(self, errand: Callable[[Session], object]) -> bool:
        """False while the database is away: what fails by itself would keep all others waiting."""
        try:
            in_app_context(self._app, partial(self._write, errand))
        except db.AWAY as error:
            self._warnings.warn(logger, "What is to be written down waits", error)
            return False
        except Exception:
            logger.exception("Something could not be written down; leases will tell.")
        return True

    def _survive(self, call: Callable[[], None]) -> bool:
        try:
            in_app_context(self._app, call)
        except Exception as error:
            self._warnings.warn(logger, "A sign of life was not given", error)
            return False
        return True

    def _write(self, verb: Callable[[Session], object]) -> None:
        with self._database.session() as session:
            verb(session)
