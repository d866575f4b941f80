"""The console: pages for people, whole without JavaScript."""

import json
import re
from typing import Any

from quart import (
    Blueprint,
    flash,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from quart_schema import validate_querystring
from sqlalchemy.orm import Session

from quart_app import db, events, jobs, tokens, why, workers
from quart_app.errors import Conflict
from quart_app.jobjson import job_json
from quart_app.models import Job, JobState, Role, Schedule
from quart_app.web import audit, auth, lists, ops, schedule_pages, schemas, sms_pages, threads

blueprint = Blueprint("pages", __name__)
blueprint.register_blueprint(schedule_pages.blueprint)
blueprint.register_blueprint(sms_pages.blueprint)
blueprint.register_blueprint(audit.pages)

#: Of a job's log; its page may grow beyond that while it is watched.
_LINES = 200
# Browsers read a backslash as a slash and skip control characters.
_OUR_PATH = re.compile(r"/(?!/)[^\\\x00-\x20]*")


@blueprint.app_template_filter()
def pretty(value: Any) -> str:
    """JSON as people read it."""
    return json.dumps(value, ensure_ascii=False, indent=2)


@blueprint.app_template_filter()
def span(seconds: float) -> str:
    """How long, in the largest unit of which there are two."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@blueprint.get("/")
async def home() -> Any:
    return redirect(url_for("pages.index"))


@blueprint.get("/jobs")
@validate_querystring(schemas.Search)
async def index(query_args: schemas.Search) -> Any:
    found = await lists.find(query_args)
    asked = query_args.model_dump(mode="json", exclude_unset=True)
    return await threads.render(
        "jobs/index.html",
        jobs=found["items"],
        filters=schemas.filters_of(query_args),
        states=[state.value for state in JobState],
        next=found["next"] and url_for("pages.index", **asked | {"cursor": found["next"]}),
    )


@blueprint.get("/jobs/<job_id>")
async def show(job_id: str) -> Any:
    job, about, happened = await db.read(_with_events, job_id)
    return await threads.render(
        "jobs/show.html",
        **_shown(job, **about),
        events=happened,
        older=max(0, job.last_seq - _LINES),
        frames_url=f"/ws/jobs/{job.id}",
        after=job.last_seq,
    )


@blueprint.get("/jobs/<job_id>/parts")
async def parts(job_id: str) -> Any:
    """What changes on a job's page with its state, for one that is watched."""
    job, about = await db.read(_whole, job_id)
    return await threads.render("jobs/_parts.html", **_shown(job, **about))


@blueprint.post("/jobs/<job_id>/cancel")
async def cancel(job_id: str) -> Any:
    return await _change(jobs.cancel, job_id)


@blueprint.post("/jobs/<job_id>/retry")
async def retry(job_id: str) -> Any:
    return await _change(jobs.retry, job_id)


@blueprint.get("/queues")
async def list_queues() -> Any:
    return await threads.render("queues/index.html", queues=await threads.read(ops.queues_json))


@blueprint.get("/workers")
async def list_workers() -> Any:
    shown = [schemas.worker_json(worker) for worker in await db.read(workers.online)]
    return await threads.render("workers/index.html", workers=shown)


@blueprint.get("/docs")
async def docs() -> Any:
    """The API's description, to be read and tried."""
    # The icons of Swagger UI lie within its style sheet.
    policy = auth.POLICY.replace("img-src 'self'", "img-src 'self' data:")
    return await render_template("docs.html"), {"Content-Security-Policy": policy}


@blueprint.route("/sign-in", methods=["GET", "POST"])
@auth.public
async def sign_in() -> Any:
    if request.method == "GET":
        return await render_template("sign_in.html", next=request.args.get("next"))
    form = await request.form
    token = await db.run(tokens.sign_in, form.get("token", "").strip())
    if token is None:
        wrong = "This token is not valid (any more)."
        return await render_template("sign_in.html", error=wrong, next=form.get("next")), 401
    auth.sign_in(token)
    return redirect(_local_path(form.get("next")))


@blueprint.get("/sign-in/<code>")
@auth.public
async def sign_in_by_link(code: str) -> Any:
    if request.method == "HEAD":  # a preview of the link does not use it up
        return ""
    token = await db.run(tokens.redeem_link, code)
    if token is None:
        wrong = "This link was used already, or is too old: use a token."
        return await render_template("sign_in.html", error=wrong), 401
    auth.sign_in(token)
    return redirect(url_for("pages.index"))


@blueprint.post("/sign-out")
@auth.needs(Role.VIEWER)
async def sign_out() -> Any:
    session.clear()
    return redirect(url_for("pages.sign_in"))


async def _change(verb: Any, job_id: str) -> Any:
    try:
        await db.run(verb, job_id)
    except Conflict as problem:
        await flash(str(problem), "wrong")
    return redirect(url_for("pages.show", job_id=job_id))


def _with_events(session: Session, job_id: str) -> Any:
    """As `_whole`, and the job's newest events: none that it does not know of."""
    job, about = _whole(session, job_id)
    older = max(0, job.last_seq - _LINES)
    return job, about, events.since(session, job_id, older, job.last_seq - older)


def _whole(session: Session, job_id: str) -> Any:
    """The job; and its schedule, why it is there, and what was made from it."""
    job = jobs.get(session, job_id)
    return job, {
        "schedule": session.get(Schedule, job.schedule_id) if job.schedule_id else None,
        "why": why.explain(session, job_id).detail,
        "made": jobs.made_from(session, job_id),
    }


def _shown(job: Job, **about: Any) -> dict[str, Any]:
    may_act = auth.may_make(job.task)
    return about | {
        "job": job_json(job) | {"context": job.context},
        "final": job.state in events.TERMINAL,
        "can_cancel": may_act and job.state not in events.TERMINAL,
        "can_retry": may_act and job.state in jobs.RETRYABLE,
    }


def _local_path(wanted: str | None) -> str:
    """Where to go after signing in: a path of ours, never another site."""
    if wanted and _OUR_PATH.fullmatch(wanted):
        return wanted
    return url_for("pages.index")
