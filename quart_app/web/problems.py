"""Errors as callers see them: problem+json (RFC 9457) for programs, a page for people."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from quart import (
    Quart,
    Response,
    current_app,
    has_request_context,
    render_template,
    request,
    websocket,
)
from quart_schema import RequestSchemaValidationError
from sqlalchemy.exc import DBAPIError, ProgrammingError
from werkzeug.exceptions import HTTPException

from quart_app import baggage, db, migrations, mysql
from quart_app.errors import Full, Invalid, Problem, Unsure
from quart_app.migrations import Behind
from quart_app.seldom import Seldom
from quart_app.web import schemas

RETRY_AFTER = {"Retry-After": "2"}

logger = logging.getLogger(__name__)
_warnings = Seldom()


def init_app(app: Quart) -> None:
    app.register_error_handler(Problem, _domain)
    app.register_error_handler(RequestSchemaValidationError, _not_as_described)
    app.register_error_handler(HTTPException, _http)
    for away in db.AWAY:
        app.register_error_handler(away, _database_away)
    app.register_error_handler(ProgrammingError, _no_such_table)
    app.register_error_handler(Exception, _unexpected)


async def answer(status: int, title: str, detail: str, **more: Any) -> Response:
    """`more` becomes members of the problem, `headers` apart."""
    headers = more.pop("headers", {})
    if _for_people():
        page = await render_template("error.html", status=status, title=title, detail=detail)
        return Response(page, status, headers)
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    text = current_app.json.dumps(body)
    return Response(text, status, headers, content_type="application/problem+json")


def headers(error: Problem) -> dict[str, str]:
    """When to come again, where that may help."""
    return RETRY_AFTER if isinstance(error, (Full, Unsure)) else {}


def is_page() -> bool:
    """Whether the request is for a page of the console, or for a form on one."""
    return "pages" in request.blueprints


def _for_people() -> bool:
    if not has_request_context():
        return False  # a socket that was refused before it was one
    accepted = request.accept_mimetypes
    return (
        (is_page() or (request.endpoint is None and not request.path.startswith("/api/")))
        and accepted.accept_html
        and accepted["text/html"] > accepted["application/json"]
    )


async def _domain(error: Problem) -> Response:
    more = {"field": error.field} if isinstance(error, Invalid) else {}
    return await answer(error.status, error.title, str(error), headers=headers(error), **more)


async def _not_as_described(error: RequestSchemaValidationError) -> Response:
    cause = error.validation_error
    if isinstance(cause, ValidationError):
        return await _domain(schemas.invalid(cause))
    return await answer(400, "Bad Request", "body: expected a JSON object", field="body")


async def _http(error: HTTPException) -> Response:
    if error.response is not None:  # a redirect, or an answer made by hand
        return error.get_response()  # type: ignore[return-value]
    status = error.code or 500
    headers = {
        name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")
    }
    return await answer(status, error.name, error.description or error.name, headers=headers)


async def _database_away(error: Exception) -> Response:
    if isinstance(error, DBAPIError) and mysql.is_incomplete(error):
        return await _no_such_table(error)
    _warnings.warn(logger, "The database did not answer", error)
    detail = "The database is not available; nothing was changed. Try again soon."
    return await answer(503, "Service Unavailable", detail, headers=RETRY_AFTER)


async def _no_such_table(error: DBAPIError) -> Response:
    """Or no such column, as it seems: nobody may have migrated the database yet."""
    try:
        await asyncio.to_thread(migrations.ensure, db.get())
    except Behind as behind:
        return await _domain(behind)
    return await _unexpected(error)


async def _unexpected(error: Exception) -> Response:
    path = request.path if has_request_context() else websocket.path
    request_id = baggage.current().request_id
    logger.error("%s failed, request %s", path, request_id, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = f"Something went wrong here; it has been logged as request {request_id}."
    return await answer(status, status.phrase, detail)
