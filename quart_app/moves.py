"""A move of a job from state to state: a conditional update, and the event that tells of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, Table, bindparam, or_, select, update
from sqlalchemy.orm import Session

from quart_app import db, events, sms
from quart_app.models import Job, JobState

_TABLE = cast("Table", Job.__table__)
#: Of the table: with the attributes of Job a statement takes twice as long.
column = _TABLE.c
#: Where a job may be queued again from, by hand.
RETRYABLE = (JobState.FAILED, JobState.CANCELLED)


class Move:
    """To make one takes longer than to call it: what is done often is made once.

    A call moves a job that is in one of the states `from_` and meets the `conditions`. `of` is what
    the caller needs to know of the job besides: Job itself, or columns of it.
    """

    def __init__(
        self,
        to: JobState,
        *conditions: ColumnElement[bool],
        from_: Sequence[JobState],
        of: Sequence[Any] = (),
        **changes: Any,
    ) -> None:
        this = column.id == bindparam("its_id")
        # Not by IN, which is put together anew each time.
        is_allowed = or_(*(column.state == state for state in from_))
        changes |= {"state": to, "last_seq": column.last_seq + 1}
        self._change = update(_TABLE).where(this, is_allowed, *conditions).values(changes)
        needed = (column.id, column.state, column.attempt, column.last_seq, db.now().label("at"))
        self._look = select(*needed, *of).where(this).execution_options(populate_existing=True)

    def __call__(
        self, session: Session, job_id: str, said: Mapping[str, Any] | None = None, **values: Any
    ) -> Row[Any] | None:
        """What was asked of the job; None when its row does not allow it, however many try at once.

        `said` goes into the event; `values` are those of its parameters, and of columns that it
        changes besides.
        """
        values["its_id"] = job_id
        if session.execute(self._change, values).rowcount == 0:  # type: ignore[attr-defined]
            return None
        job = session.execute(self._look, {"its_id": job_id}).one()
        tell(session, [job], job.at, said)
        return job


def tell(
    session: Session,
    moved: Sequence[Job | Row[Any]],
    at: datetime,
    said: Mapping[str, Any] | None = None,
) -> None:
    """Records that jobs are in their states; what failed or cancelled ones sent is abandoned."""
    events.record(session, [events.of_state(job, at, said) for job in moved])
    if ended := [job.id for job in moved if job.state in RETRYABLE]:
        sms.abandon(session, ended)
