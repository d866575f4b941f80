"""Who changed what, for admins: as JSON and as a page."""

from typing import Any

from quart import Blueprint, render_template, url_for
from quart_schema import validate_querystring

from quart_app import audit, db
from quart_app.models import Role
from quart_app.web import auth, schemas

blueprint = Blueprint("audit", __name__)
pages = Blueprint("audit", __name__)

_COLUMNS = ("actor", "action", "target")


@blueprint.get("/api/audit")
@auth.needs(Role.ADMIN)
@validate_querystring(schemas.AuditSearch)
async def search(query_args: schemas.AuditSearch) -> Any:
    """The newest entries first; `next` is the cursor of the following page."""
    return await _find(query_args)


@pages.get("/audit")
@auth.needs(Role.ADMIN)
@validate_querystring(schemas.AuditSearch)
async def index(query_args: schemas.AuditSearch) -> Any:
    found = await _find(query_args)
    filters = query_args.model_dump(mode="json", exclude_unset=True)
    return await render_template(
        "audit/index.html",
        entries=found["items"],
        filters={name: value for name, value in filters.items() if name in _COLUMNS},
        next=found["next"] and url_for("pages.audit.index", **filters | {"cursor": found["next"]}),
    )


async def _find(wanted: schemas.AuditSearch) -> dict[str, Any]:
    found = await db.read(
        audit.search, exact={name: getattr(wanted, name) for name in _COLUMNS},
        since=wanted.since, until=wanted.until, before=wanted.cursor, limit=wanted.limit + 1,
    )  # fmt: skip
    return schemas.page_json(found, wanted.limit, schemas.audit_json)
