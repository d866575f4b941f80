"""The HTTP API of many jobs: lists of them, and what is done to all that match."""

from typing import Any

from quart import Blueprint
from quart_schema import document_response, validate_querystring, validate_request

from quart_app import bulk, db, lists
from quart_app.jobjson import page_json
from quart_app.web import answers, schemas, threads

blueprint = Blueprint("lists", __name__)


@blueprint.get("/api/jobs")
@document_response(answers.Jobs)
@validate_querystring(schemas.Search)
async def search(query_args: schemas.Search) -> Any:
    """The newest jobs first; `next` is the cursor of the following page.

    A page may hold fewer jobs than `limit`, or none, and still have a `next`: where several filters
    or `q` have many jobs looked through, and where the jobs are big. Only a `next` of null is the
    end.
    """
    return await threads.answer(_page, query_args)


@blueprint.post("/api/jobs/cancel")
@document_response(answers.Counts)
@document_response(answers.Counts, 202)
@validate_request(schemas.ManyJobs)
async def cancel_many(data: schemas.ManyJobs) -> Any:
    """Cancels all jobs that match, newest first, as far as their state allows it.

    Jobs that arrive meanwhile are left alone. One call changes 10,000 at most, and takes about five
    seconds: while `next` is not null there are more, for a call with it as `cursor`.
    """
    return await _change_many(bulk.CANCEL, data)


@blueprint.post("/api/jobs/retry")
@document_response(answers.Counts)
@document_response(answers.Counts, 202)
@validate_request(schemas.ManyJobs)
async def retry_many(data: schemas.ManyJobs) -> Any:
    """Runs all failed and cancelled jobs that match again; bounded as cancelling many is."""
    return await _change_many(bulk.RETRY, data)


async def find(wanted: schemas.Search) -> dict[str, Any]:
    """One page of jobs, and the cursor of the next one if there is one."""
    # In a thread, since hundreds of jobs take longer to read than other requests should wait.
    return await threads.read(_page, wanted)


def _page(wanted: schemas.Search) -> dict[str, Any]:
    with db.session(reading=True) as session:
        found = lists.page(session, wanted.filters(), limit=wanted.limit, after=wanted.after())
        return page_json(found)


async def _change_many(action: bulk.Action, wanted: schemas.ManyJobs) -> Any:
    tally = await threads.run(
        bulk.run, db.get(), action, wanted.filters(), dry_run=wanted.dry_run, after=wanted.after()
    )
    return schemas.tally_json(tally), 200 if wanted.dry_run else 202
