"""An event of each of some jobs, in one commit."""

import time
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from asgi import app
from quart_app import db, events
from quart_app.celeryext import in_app_context
from quart_app.events import NewEvent
from quart_app.models import Job


def figures(ids: Sequence[str]) -> float:
    """When it was committed, by the clock of the machine."""

    def say() -> None:
        with db.session() as session:
            _say(session, ids)

    in_app_context(app, say)
    committed = time.monotonic()
    app.extensions["publisher"].close()
    return committed


def _say(session: Session, ids: Sequence[str]) -> None:
    mine = Job.id.in_(ids)
    session.execute(update(Job).where(mine).values(last_seq=Job.last_seq + 1))
    at = session.scalars(select(db.now())).one()
    numbered = session.execute(select(Job.id, Job.last_seq).where(mine)).all()
    line = {"level": "info", "message": "something happened"}
    events.record(
        session,
        [NewEvent(id_, seq, at, "log", line) for id_, seq in numbered],
    )
