"""A move of a job from state to state: a conditional update, and the event that tells of it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, bindparam, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from quart_app import db, events
from quart_app.models import Job, JobState

_TABLE = cast("Table", Job.__table__)
#: Of the table, for what a move asks and changes: attributes of Job would take twice as long.
column = _TABLE.c


class Move:
    """Prepared once, since that takes longer than to carry it out, which is done by calling it.

    It moves a job that is in one of the states `from_` and meets the `conditions`. Of the job are
    loaded all columns, or those `of` it that the caller needs: each costs time.
    """

    def __init__(
        self,
        to: JobState,
        *conditions: ColumnElement[bool],
        from_: Sequence[JobState],
        of: Sequence[InstrumentedAttribute[Any]] = (),
        **changes: Any,
    ) -> None:
        is_allowed = (column.id == bindparam("its_id"), column.state.in_(from_), *conditions)
        changes |= {"state": to, "last_seq": column.last_seq + 1}
        self._change = update(_TABLE).where(*is_allowed).values(changes)
        self._look = select(Job, db.now()).where(Job.id == bindparam("its_id"))
        if of:
            needed = load_only(*of, Job.id, Job.state, Job.attempt, Job.last_seq)
            self._look = self._look.options(needed)

    def __call__(
        self, session: Session, job_id: str, said: Mapping[str, Any] | None = None, **values: Any
    ) -> Job | None:
        """The job as it is then; None when the row does not allow it, however many try at once.

        `said` goes into the event; `values` are those of its parameters, and of columns that it
        changes besides.
        """
        values["its_id"] = job_id
        if session.execute(self._change, values).rowcount == 0:  # type: ignore[attr-defined]
            return None
        found = session.execute(self._look, {"its_id": job_id}, execution_options=_ANEW)
        job, at = found.one()
        events.record(session, [events.of_state(job, at, said)])
        return job


_ANEW = {"populate_existing": True}
