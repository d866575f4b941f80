"""Who changed what, for admins: as JSON and as a page."""

from typing import Any

from pydantic import Field
from quart import Blueprint, url_for
from quart_schema import document_response, validate_querystring

from quart_app import audit, db
from quart_app.events import timestamp
from quart_app.models import AuditEntry, Role
from quart_app.web import answers, auth, threads
from quart_app.web.schemas import Cursor, Moment, Plain, Strict, filters_of

blueprint = Blueprint("audit", __name__)
pages = Blueprint("audit", __name__)

_COLUMNS = ("actor", "action", "target")


class AuditSearch(Strict):
    """Filters of the audit log; `target` is an id, or of a token its name."""

    actor: Plain | None = Field(None, max_length=255)
    action: Plain | None = Field(None, max_length=64, examples=["job.cancel"])
    target: Plain | None = Field(None, max_length=255)
    since: Moment | None = None
    until: Moment | None = None
    limit: int = Field(50, ge=1, le=500)
    cursor: Cursor = None


@blueprint.get("/api/audit")
@auth.needs(Role.ADMIN)
@document_response(answers.Audit)
@validate_querystring(AuditSearch)
async def search(query_args: AuditSearch) -> Any:
    """The newest entries first; `next` is the cursor of the following page."""
    return await _find(query_args)


@pages.get("/audit")
@auth.needs(Role.ADMIN)
@validate_querystring(AuditSearch)
async def index(query_args: AuditSearch) -> Any:
    found = await _find(query_args)
    asked = query_args.model_dump(mode="json", exclude_unset=True)
    return await threads.render(
        "audit/index.html",
        entries=found["items"],
        filters=filters_of(query_args),
        next=found["next"] and url_for("pages.audit.index", **asked | {"cursor": found["next"]}),
    )


async def _find(wanted: AuditSearch) -> dict[str, Any]:
    found = await db.read(
        audit.search, exact={name: getattr(wanted, name) for name in _COLUMNS},
        since=wanted.since, until=wanted.until, before=wanted.cursor, limit=wanted.limit + 1,
    )  # fmt: skip
    page = found[: wanted.limit]
    return {
        "items": [_entry_json(entry) for entry in page],
        "next": page[-1].id if len(found) > wanted.limit else None,
    }


def _entry_json(entry: AuditEntry) -> dict[str, Any]:
    kind = entry.action.partition(".")[0]
    return {
        "id": entry.id,
        "at": timestamp(entry.at),
        "actor": entry.actor,
        "via": entry.via,
        "action": entry.action,
        "target": {"kind": kind, "id": entry.target},
        "request_id": entry.request_id,
        "detail": entry.detail,
    }
