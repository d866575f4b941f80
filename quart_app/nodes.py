"""Who is running: a row for each worker and each beat, refreshed while it lives."""

import threading
from collections.abc import Callable
from typing import Any

from quart import Quart
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.models import Node

#: Seconds between two signs of life, and after how many of silence a node counts as gone.
EVERY = 3.0
GONE_AFTER = 10.0


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


def online(session: Session, kind: str) -> list[Node]:
    alive = select(Node).where(Node.kind == kind, Node.seen_at > db.now(-GONE_AFTER))
    return list(session.scalars(alive.order_by(Node.name)))


class Pulse(threading.Thread):
    """Says every few seconds that this process is alive, until it is stopped."""

    def __init__(self, app: Quart, say: Callable[[Session], None], every: float = EVERY) -> None:
        super().__init__(name="pulse", daemon=True)
        self._database = db.beside_forks(app)
        self._say, self._every = say, every
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._database.session() as session:
                    self._say(session)
            except Exception:  # noqa: S110 - silence is the message: the node counts as gone
                pass
            self._stopped.wait(self._every)

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=EVERY)
