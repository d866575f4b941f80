"""The pages of SMS: the form, the messages that wait for their time, and what became of others."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from quart import Blueprint, current_app, flash, g, redirect, render_template, request, url_for
from sqlalchemy.orm import Session

from quart_app import actors, db, jobs, newjobs, sms
from quart_app.errors import Conflict, Invalid, Problem
from quart_app.models import Job, Message
from quart_app.web import auth, problems

blueprint = Blueprint("sms", __name__, url_prefix="/sms")

_FIELDS = ("to", "text", "send_at", "nonce")
#: Messages that wait, as many as one page shows.
_MOST_WAITING = 100
#: How late a time may be, as the form's own is cut off at the minute.
_LATE = timedelta(minutes=1)


@blueprint.get("")
async def index() -> Any:
    return await _page({"nonce": secrets.token_urlsafe(16)})


@blueprint.post("")
async def send() -> Any:
    """Now, as a job; or, with `send_at`, as a message that waits for its time."""
    form = await request.form
    values = {name: form.get(name, "").replace("\r\n", "\n") for name in _FIELDS}
    try:
        job = await db.run(_accept, values)
    except Problem as problem:
        return await _again(values, problem)
    if job is None:
        await flash("The message will be sent when its time comes.", "done")
        return redirect(url_for("pages.sms.index"))
    return redirect(url_for("pages.show", job_id=job.id))


@blueprint.post("/<message_id>/cancel")
async def cancel(message_id: str) -> Any:
    try:
        await db.run(sms.cancel, message_id)
    except Conflict as problem:
        await flash(str(problem), "wrong")
    return redirect(url_for("pages.sms.index"))


def _accept(session: Session, values: Mapping[str, str]) -> Job | None:
    given, later = {name: values[name] for name in ("to", "text")}, _local_time(values["send_at"])
    if later is None:
        return jobs.submit(session, sms.TASK, kwargs=given, idempotency_key=_key(values))
    actors.check(sms.TASK)
    _, checked = jobs.task_named(sms.TASK).check((), given)
    if later < db.clock(session) - _LATE:
        raise Invalid("send_at", "expected a time to come; this one has passed")
    sms.schedule(session, checked["to"], checked["text"], later, _key(values))
    return None


def _key(values: Mapping[str, str]) -> str | None:
    """The same form sent again, as by a second click, is the same message; a changed one is not."""
    if not values["nonce"]:
        return None  # from a program
    return newjobs.digest(g.user.token_id, *(values[name] for name in _FIELDS))


def _local_time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        local = datetime.fromisoformat(text)
        if not 2000 <= local.year < 3000:
            raise ValueError(text)
    except ValueError:
        raise Invalid("send_at", "expected a date and a time") from None
    return local.replace(tzinfo=local.tzinfo or ZoneInfo(current_app.config["CELERY_TIMEZONE"]))


async def _again(values: Mapping[str, str], problem: Problem) -> Any:
    """The form as it was sent, with what is wrong; to send it once more does no harm."""
    errors = {"form": str(problem)}
    if isinstance(problem, Invalid) and (field := problem.field.removeprefix("kwargs.")) in values:
        errors = {field: problem.detail}
    try:
        page = await _page(values, errors)
    except db.AWAY:
        raise problem from None  # which may be that what was sent is in doubt
    return page, problem.status, problems.headers(problem)


async def _page(values: Mapping[str, str], errors: Mapping[str, str] | None = None) -> str:
    waiting, recent = await db.read(_in_sight)
    may = auth.may_make(sms.TASK)
    return await render_template(
        "sms/index.html", values=values, errors=errors or {}, may=may, task=sms.TASK,
        waiting=waiting, most=_MOST_WAITING, messages=recent,
        timezone=current_app.config["CELERY_TIMEZONE"],
    )  # fmt: skip


def _in_sight(session: Session) -> tuple[Sequence[Message], Sequence[Message]]:
    return sms.waiting(session, _MOST_WAITING), sms.recent(session)
