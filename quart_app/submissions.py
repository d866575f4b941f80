"""The web's own way in: the jobs of many requests at once are accepted in one transaction."""

import asyncio
from collections.abc import Sequence

from quart import Quart, current_app
from sqlalchemy.exc import DataError

from quart_app import db, jobs, newjobs
from quart_app.errors import Problem
from quart_app.models import Job
from quart_app.newjobs import NewJob
from quart_app.together import Together

_Row = tuple[Job, NewJob]


def init_app(app: Quart) -> None:
    app.extensions["submissions"] = Together(app, _accept)


async def submit(new: NewJob) -> Job:
    """As `jobs.submit`, in a transaction that others may share; durable when this returns."""
    # Checked before anything is begun, so that what is wrong concerns its caller alone.
    rows: Together[_Row, Job] = current_app.extensions["submissions"]
    return await rows.ask((newjobs.row(new), new))


async def _accept(rows: Sequence[_Row]) -> Sequence[Job | Exception]:
    try:
        return await db.run(jobs.insert_rows, rows)
    except (Problem, DataError):
        if len(rows) == 1:
            raise
    # One of them may be full or a conflict: each has its own transaction then.
    return await asyncio.gather(*map(_alone, rows))


async def _alone(row: _Row) -> Job | Exception:
    try:
        return (await db.run(jobs.insert_rows, [row]))[0]
    except Exception as error:
        return error
