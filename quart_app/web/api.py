"""The HTTP API: each view parses, calls one verb and answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from quart import Blueprint, current_app, request
from quart_schema import (
    document_request,
    document_response,
    validate_querystring,
)
from sqlalchemy.orm import Session

from quart_app import db, jobs, newjobs, sms, submissions, why
from quart_app.errors import Invalid
from quart_app.jobjson import job_json
from quart_app.newjobs import NewJob
from quart_app.web import answers, idempotency, schemas, threads
from quart_app.web.requests import BATCH_PATH
from quart_app.web.streams import event_list, event_stream, last_seen

blueprint = Blueprint("api", __name__)

#: Of a range that is kept free for fiction: nobody has it.
_NOBODY = {"to": "+12015550123", "text": "Greetings from Quartermaster."}


@blueprint.post("/task")
@document_request(schemas.Text)
async def send_one() -> Any:
    """Sends one SMS in the background; the answer is the job's id."""
    given = schemas.read(schemas.Text, await _body_or({}))
    wanted = given.model_dump(exclude_none=True)
    if not wanted and current_app.config["SMS_PROVIDER"] == "console":
        wanted = _NOBODY
    asked: dict[str, Any] = {"task": sms.TASK, "kwargs": wanted}
    with _named_as_in_the_body():
        job = await submissions.submit(NewJob(**asked, **idempotency.keys(asked)))
    return job.id, 202, {"Location": f"/api/jobs/{job.id}", "Content-Type": "text/plain"}


@blueprint.post("/api/jobs")
@document_request(schemas.NewJob)
@document_response(answers.Job, 202)
async def submit() -> Any:
    """Accepts a job; 202 means that it is durable and will run."""
    return await _submit(schemas.read(schemas.NewJob, await request.get_json()))


@blueprint.post("/api/tasks/<name>")
async def submit_by_name(name: str) -> Any:
    """Accepts a job of this task; the body is its keyword arguments, or its one model's fields."""
    body = await _body_or({})
    if not isinstance(body, dict):
        raise Invalid("body", "expected an object: the task's keyword arguments")
    kwargs, within = _unfolded(jobs.task_named(name), body)
    with _named_as_in_the_body(within):
        return await _submit(schemas.read(schemas.NewJob, {"task": name, "kwargs": kwargs}))


@blueprint.post(BATCH_PATH)
@document_response(answers.Ids, 202)
@document_request(schemas.Batch)
async def submit_batch() -> Any:
    """Accepts all of the jobs or none.

    An `Idempotency-Key` is refused, since it goes with one job at a time; jobs that have a
    `unique_key` are made once while they live.
    """
    if "Idempotency-Key" in request.headers:
        raise Invalid("Idempotency-Key", "goes with one job at a time, and not with a batch")
    # Thousands of jobs are seconds of work: in a thread they stop no other request.
    ids = await threads.run(_accept_batch, await request.get_json())
    return {"ids": ids}, 202


@blueprint.get("/api/jobs/<job:job_id>")
@document_response(answers.Job)
async def show(job_id: str) -> Any:
    return job_json(await db.read(jobs.get, job_id))


@blueprint.post("/api/jobs/<job_id>/cancel")
@document_response(answers.Job, 202)
async def cancel(job_id: str) -> Any:
    """Final for a waiting job; a running one is asked to stop."""
    return job_json(await db.run(jobs.cancel, job_id)), 202


@blueprint.post("/api/jobs/<job_id>/retry")
@document_response(answers.Job, 202)
@document_request(schemas.Changes)
async def retry(job_id: str) -> Any:
    """The same job again, now; it must have failed or been cancelled.

    With `args` or `kwargs` it is a new job with these instead, whose `retry_of` is the id of the
    old one: that may have succeeded, too. What is not given of the two stays as it was.
    """
    changed = schemas.read(schemas.Changes, await _body_or({}))
    if changed.args is None and changed.kwargs is None:
        return job_json(await db.run(jobs.retry, job_id)), 202
    keys = idempotency.keys({"retry_of": job_id, **dict(changed)})
    job = await db.run(jobs.retry_with, job_id, changed.args, changed.kwargs, keys)
    return job_json(job), 202, {"Location": f"/api/jobs/{job.id}"}


@blueprint.get("/api/jobs/<job_id>/events")
@document_response(answers.Events)
@validate_querystring(schemas.EventSearch)
async def list_events(job_id: str, query_args: schemas.EventSearch) -> Any:
    """What happened to the job after a seq; as a stream when text/event-stream is accepted."""
    after = query_args.after
    if request.accept_mimetypes.best == "text/event-stream":
        return await event_stream(job_id, last_seen(request.headers.get("Last-Event-ID"), after))
    return await event_list(job_id, after)


@blueprint.get("/api/jobs/<job_id>/why")
@document_response(answers.Why)
async def explain(job_id: str) -> Any:
    """Why the job is where it is: a word, a sentence, and the facts it rests on."""
    return schemas.why_json(await db.read(why.explain, job_id))


@blueprint.get("/api/tasks")
@document_response(answers.Tasks)
async def list_tasks() -> Any:
    """Every task a job can be made of, with the JSON Schema of its parameters."""
    ours = newjobs.tasks_of(current_app.extensions["celery"])
    return {"items": [_task_json(task) for task in ours.values()]}


async def _body_or(default: Any) -> Any:
    return await request.get_json() if await request.get_data() else default


def _accept_batch(body: Any) -> Sequence[str]:
    wanted = [NewJob(**dict(one)) for one in schemas.read(schemas.Batch, body).jobs]
    return db.get().run_here(_submit_many, wanted)


def _submit_many(session: Session, wanted: Sequence[NewJob]) -> Sequence[str]:
    return [job.id for job in jobs.submit_many(session, wanted)]


@contextmanager
def _named_as_in_the_body(within: str = "") -> Iterator[None]:
    """For a body that is the keyword arguments, or what is `within` one of them."""
    try:
        yield
    except Invalid as wrong:
        field = wrong.field.removeprefix("kwargs.").removeprefix(within)
        raise Invalid(field, wrong.detail) from None


def _unfolded(task: newjobs.Task, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The keyword arguments, and before what is named in them what is not in the body."""
    if task.wrapped is None:
        return body, ""
    name, model = task.wrapped
    if body.keys() == {name} and name not in model.model_json_schema().get("properties", {}):
        return body, ""
    return {name: body}, f"{name}."


async def _submit(data: schemas.NewJob) -> Any:
    job = await submissions.submit(NewJob(**dict(data), **idempotency.keys(dict(data))))
    return job_json(job), 202, {"Location": f"/api/jobs/{job.id}"}


def _task_json(task: Any) -> dict[str, Any]:
    return {
        "name": task.name,
        "doc": (task.__doc__ or "").strip(),
        "queue": task.destination,
        "max_attempts": task.max_attempts,
        "parameters": task.schema,
    }
