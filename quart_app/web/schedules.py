"""The HTTP API of schedules: viewers read, operators run, admins change."""

from datetime import datetime
from typing import Any

from quart import Blueprint
from quart_schema import document_response, validate_querystring, validate_request

from quart_app import db, schedules
from quart_app.jobjson import job_json
from quart_app.models import Role
from quart_app.web import answers, auth, idempotency, schedule_schemas, threads
from quart_app.web.schedule_schemas import schedule_json

blueprint = Blueprint("schedules", __name__, url_prefix="/api/schedules")


@blueprint.get("")
@document_response(schedule_schemas.Schedules)
async def index() -> Any:
    """All schedules, by name, those from settings too."""
    return {"items": [schedule_json(schedule) for schedule in await db.read(schedules.everyone)]}


@blueprint.post("")
@auth.needs(Role.ADMIN)
@document_response(schedule_schemas.Schedule, 201)
@validate_request(schedule_schemas.NewSchedule)
async def create(data: schedule_schemas.NewSchedule) -> Any:
    """Makes a schedule; beat sees it within two seconds."""
    made = await db.run(schedules.create, **data.model_dump(exclude_unset=True))
    return schedule_json(made), 201, {"Location": f"/api/schedules/{made.id}"}


@blueprint.get("/<schedule_id>")
@document_response(schedule_schemas.Schedule)
async def show(schedule_id: str) -> Any:
    return schedule_json(await db.read(schedules.get, schedule_id))


@blueprint.patch("/<schedule_id>")
@auth.needs(Role.ADMIN)
@document_response(schedule_schemas.Schedule)
@validate_request(schedule_schemas.Change)
async def change(schedule_id: str, data: schedule_schemas.Change) -> Any:
    """Changes what is given; a new rule is next due at its own time."""
    changes = data.model_dump(exclude_unset=True)
    return schedule_json(await db.run(schedules.change, schedule_id, **changes))


@blueprint.delete("/<schedule_id>")
@auth.needs(Role.ADMIN)
async def delete(schedule_id: str) -> Any:
    """Ends a schedule; the jobs it made stay."""
    await db.run(schedules.delete, schedule_id)
    return "", 204


@blueprint.post("/<schedule_id>/run")
@document_response(answers.Job, 202)
async def run(schedule_id: str) -> Any:
    """Accepts a job of it now, also while it is paused."""
    keys = idempotency.keys({"schedule": schedule_id})
    job = await db.run(schedules.run_now, schedule_id, **keys)
    return job_json(job), 202, {"Location": f"/api/jobs/{job.id}"}


@blueprint.post("/<schedule_id>/pause")
@auth.needs(Role.ADMIN)
@document_response(schedule_schemas.Schedule)
async def pause(schedule_id: str) -> Any:
    """From now on it is not due, until it is resumed."""
    return schedule_json(await db.run(schedules.pause, schedule_id))


@blueprint.post("/<schedule_id>/resume")
@auth.needs(Role.ADMIN)
@document_response(schedule_schemas.Schedule)
async def resume(schedule_id: str) -> Any:
    """Due again from now on; what passed meanwhile is not made up for."""
    return schedule_json(await db.run(schedules.resume, schedule_id))


@blueprint.get("/<schedule_id>/next")
@document_response(schedule_schemas.Times)
@validate_querystring(schedule_schemas.Ahead)
async def show_next(schedule_id: str, query_args: schedule_schemas.Ahead) -> Any:
    """The next times that its rule gives, paused or not."""
    # In a thread: a thousand times of a rare rule take longer than other requests should wait.
    ahead = await threads.read(_upcoming, schedule_id, query_args.count)
    return {
        "times": [time.isoformat() for time, _ in ahead],
        "dst": [index for index, (_, moved) in enumerate(ahead) if moved],
    }


def _upcoming(schedule_id: str, count: int) -> list[tuple[datetime, bool]]:
    with db.session(reading=True) as session:
        return schedules.upcoming(session, schedule_id, count)
