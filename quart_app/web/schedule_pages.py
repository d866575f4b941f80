"""The pages of schedules: all of them, one with its times to come, and the form for each."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from quart import Blueprint, current_app, g, redirect, render_template, request, url_for
from sqlalchemy.orm import Session

from quart_app import actors, db, duetimes, newjobs, newschedules, schedules
from quart_app.errors import Conflict, Invalid, NotFound
from quart_app.jobjson import job_json
from quart_app.models import Role, Schedule
from quart_app.web import auth, schedule_schemas, schemas

blueprint = Blueprint("schedules", __name__, url_prefix="/schedules")

_AHEAD, _JOBS = 10, 10
_FIELDS = ("name", "task", "kwargs", "cron", "interval", "timezone", "missed")
_MAY_BE_EMPTY = ("cron", "interval", "timezone", "missed")


@blueprint.app_template_filter()
def in_zone(at: datetime, schedule: Schedule) -> datetime:
    return duetimes.local(schedule, at)


@blueprint.get("")
async def index() -> Any:
    found = await db.read(schedules.everyone)
    return await render_template("schedules/index.html", schedules=found, **_allowed())


@blueprint.get("/<schedule_id>")
async def show(schedule_id: str) -> Any:
    schedule, times, no_times, jobs = await db.read(_whole, schedule_id)
    shown = [job_json(job) for job in jobs]
    return await render_template(
        "schedules/show.html", schedule=schedule, times=times, no_times=no_times, jobs=shown,
        **_allowed(schedule.task),
    )  # fmt: skip


@blueprint.get("/new")
@auth.needs(Role.ADMIN)
async def new() -> Any:
    return await _form({}, {})


@blueprint.post("")
@auth.needs(Role.ADMIN)
async def create() -> Any:
    return await _save(schedules.create)


@blueprint.get("/<schedule_id>/change")
@auth.needs(Role.ADMIN)
async def edit(schedule_id: str) -> Any:
    schedule = await db.read(schedules.changeable, schedule_id)
    return await _form(_filled_in(schedule), {}, schedule)


@blueprint.post("/<schedule_id>/change")
@auth.needs(Role.ADMIN)
async def change(schedule_id: str) -> Any:
    return await _save(schedules.change, await db.read(schedules.changeable, schedule_id))


@blueprint.post("/<schedule_id>/pause")
@auth.needs(Role.ADMIN)
async def pause(schedule_id: str) -> Any:
    await db.run(schedules.pause, schedule_id)
    return redirect(url_for("pages.schedules.show", schedule_id=schedule_id))


@blueprint.post("/<schedule_id>/resume")
@auth.needs(Role.ADMIN)
async def resume(schedule_id: str) -> Any:
    await db.run(schedules.resume, schedule_id)
    return redirect(url_for("pages.schedules.show", schedule_id=schedule_id))


@blueprint.get("/<schedule_id>/delete")
@auth.needs(Role.ADMIN)
async def ask_to_delete(schedule_id: str) -> Any:
    schedule = await db.read(schedules.changeable, schedule_id)
    return await render_template("schedules/delete.html", schedule=schedule)


@blueprint.post("/<schedule_id>/delete")
@auth.needs(Role.ADMIN)
async def delete(schedule_id: str) -> Any:
    await db.run(schedules.delete, schedule_id)
    return redirect(url_for("pages.schedules.index"))


@blueprint.post("/<schedule_id>/run")
async def run(schedule_id: str) -> Any:
    job = await db.run(schedules.run_now, schedule_id)
    return redirect(url_for("pages.show", job_id=job.id))


def _whole(session: Session, schedule_id: str) -> Any:
    """The schedule, its times to come, why there are none if so, and its last jobs."""
    schedule, no_times = schedules.get(session, schedule_id), "None: it has ended."
    try:
        times = schedules.upcoming(session, schedule_id, _AHEAD)
    except Conflict as problem:
        times, no_times = [], str(problem)
    return schedule, times, no_times, schedules.last_jobs(session, schedule_id, _JOBS)


def _allowed(task: str | None = None) -> dict[str, bool]:
    """What the reader may do with schedules, or with one of the task."""
    ours = task is None or actors.current().may_use(task)
    may_run, may_change = g.user.may(Role.OPERATOR), g.user.may(Role.ADMIN)
    return {"may_run": ours and may_run, "may_change": ours and may_change}


async def _save(verb: Callable[..., Schedule], schedule: Schedule | None = None) -> Any:
    """Makes one, or changes the one given, by the form, which is shown again if it is wrong."""
    form = await request.form
    values = {name: form.get(name, "").strip() for name in _FIELDS}
    known = [schedule.id] if schedule else []
    try:
        wanted = schemas.read(schedule_schemas.NewSchedule, _read(values))
        saved = await db.run(verb, *known, **wanted.model_dump(exclude_unset=True))
    except Invalid as problem:
        field, _, inner = problem.field.partition(".")
        told = f"{inner}: {problem.detail}" if inner else problem.detail
        # What the form has no field for, a queue say, is told above it.
        wrong = {field: told} if field in _FIELDS else {"form": str(problem)}
        return await _form(values, wrong, schedule), 422
    except (Conflict, NotFound) as problem:
        field = "name" if isinstance(problem, Conflict) else "task"
        return await _form(values, {field: str(problem)}, schedule), problem.status
    return redirect(url_for("pages.schedules.show", schedule_id=saved.id))


def _read(values: Mapping[str, str]) -> dict[str, Any]:
    """What was filled in, in its types; raises Invalid."""
    given: dict[str, Any] = dict.fromkeys(_MAY_BE_EMPTY) | {"kwargs": "{}"}
    given |= {name: value for name, value in values.items() if value}
    for name, read in (("kwargs", json.loads), ("interval", float)):
        try:
            given |= {name: read(given[name])} if given[name] else {}
        except (ValueError, RecursionError):
            expected = "a JSON object" if name == "kwargs" else "a number of seconds"
            raise Invalid(name, f"expected {expected}") from None
    return given


def _filled_in(schedule: Schedule) -> dict[str, str]:
    """The form's fields as they are to be read again."""
    values = {name: getattr(schedule, name) or "" for name in _FIELDS}
    values["kwargs"] = json.dumps(schedule.kwargs, ensure_ascii=False, indent=2)
    return values | {"interval": str(schedule.interval or "").removesuffix(".0")}


async def _form(
    values: Mapping[str, str], errors: Mapping[str, str], schedule: Schedule | None = None
) -> str:
    known = newjobs.tasks_of(current_app.extensions["celery"])
    tasks = [name for name in known if actors.current().may_use(name)]
    zone = current_app.config["CELERY_TIMEZONE"]
    return await render_template(
        "schedules/form.html", schedule=schedule, values=values, errors=errors, tasks=tasks,
        timezone=zone, policies=newschedules.MISSED,
    )  # fmt: skip
