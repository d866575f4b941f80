"""What the tasks leave behind: a row at each start and one as their effect, nothing unique."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.models import ID, Time

metadata = MetaData()


def _table(name: str, *more: Column[int]) -> Table:
    return Table(name, metadata, Column("job_id", ID, index=True), *more, Column("at", Time()))


starts = _table("starts", Column("attempt", Integer))
effects = _table("effects", Column("attempt", Integer))
#: What the client got a 202 for, written when all is over.
accepted = _table("accepted")


def started(session: Session, job_id: str, attempt: int) -> None:
    session.execute(insert(starts).values(job_id=job_id, attempt=attempt, at=db.now()))


def worked(session: Session, job_id: str, attempt: int) -> None:
    session.execute(insert(effects).values(job_id=job_id, attempt=attempt, at=db.now()))


def keep_accepted(session: Session, jobs: Iterable[tuple[str, datetime]]) -> None:
    if rows := [{"job_id": job_id, "at": at} for job_id, at in jobs]:
        session.execute(insert(accepted), rows)
