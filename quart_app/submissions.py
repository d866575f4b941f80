"""The web's own way in: the jobs of many requests at once are accepted in one transaction."""

from collections.abc import Sequence

from quart import Quart, current_app
from sqlalchemy.exc import DataError

from quart_app import db, intake, newjobs, traces
from quart_app.errors import Problem, Unsure
from quart_app.intake import Row
from quart_app.models import Job
from quart_app.newjobs import NewJob
from quart_app.together import Late, Together


def init_app(app: Quart) -> None:
    app.extensions["submissions"] = Together(app, _accept, app.config["REQUEST_PATIENCE"])


async def submit(new: NewJob) -> Job:
    """As `jobs.submit`, in a transaction that others may share; durable when this returns.

    Raises Late when it has been left out, Unsure when it may still be carried out.
    """
    rows: Together[Row, Job] = current_app.extensions["submissions"]
    with traces.submitting() as tell:
        # Checked before anything is begun, so that what is wrong concerns its caller alone.
        try:
            job = await rows.ask((newjobs.row(new), new))
        except Late as late:
            if late.was_asked:
                raise Unsure from late
            raise
        tell([job])
    return job


async def _accept(rows: Sequence[Row]) -> Sequence[Job | Exception]:
    try:
        return await db.run(intake.insert, rows)
    except Unsure:  # they may be in: to try each again would be a guess
        raise
    except (Problem, DataError):
        if len(rows) == 1:
            raise
    # Of one of them alone, it may be: each has its own transaction then, and sees those before it.
    return [await _alone(row) for row in rows]


async def _alone(row: Row) -> Job | Exception:
    try:
        return (await db.run(intake.insert, [row]))[0]
    except Exception as error:
        return error
