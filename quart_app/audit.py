"""The record of who changed what: each entry is written in the transaction of its act."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import uuid_utils
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from quart_app import actors, baggage, commits, db
from quart_app.models import AuditEntry


def record(
    session: Session, action: str, target: str | None, *, actor: str | None = None, **detail: Any
) -> None:
    """`action` is a noun and a verb, as "job.cancel"; `target` the id or the name of that noun.

    `actor` is for those who become known by the act. No secrets and no arguments go into `detail`.
    """
    who = actors.current()
    entry = AuditEntry(
        id=str(uuid_utils.uuid7()),
        at=db.now(),
        actor=who.name if actor is None else actor,
        via=who.via,
        action=action,
        target=target,
        request_id=baggage.current().request_id,
        detail=detail,
    )
    session.add(entry)
    commits.prove(session, partial(_kept, entry.id))


def search(
    session: Session,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    before: str | None = None,
    limit: int = 50,
    exact: Mapping[str, str | None],
) -> list[AuditEntry]:
    """The newest first; `exact` has values of columns, None for any."""
    table = AuditEntry
    wanted = [getattr(table, name) == value for name, value in exact.items() if value is not None]
    if since:
        wanted.append(table.at >= since)
    if until:
        wanted.append(table.at <= until)
    if before:
        wanted.append(table.id < before)
    return list(
        session.scalars(select(table).where(*wanted).order_by(table.id.desc()).limit(limit))
    )


def _kept(id_: str) -> Select[Any]:
    return select(AuditEntry.id).where(AuditEntry.id == id_)
