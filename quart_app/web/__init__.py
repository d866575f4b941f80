"""The web: the API, the pages and the sockets of the application."""

from functools import partial
from typing import Any

from quart import Quart
from quart_schema import QuartSchema

from quart_app import __version__
from quart_app.web import (
    api,
    audit,
    auth,
    granian,
    inbox,
    lists,
    live,
    metrics,
    ops,
    pages,
    problems,
    schedules,
    sockets,
    swagger,
    uses,
)
from quart_app.web.openapi import Provider
from quart_app.web.requests import JobId, Request, hear_out, name_request, take_up_baggage


def init_app(app: Quart) -> None:
    batch = app.config["MAX_BATCH_CONTENT_LENGTH"]
    app.request_class = partial(Request, most_in_batch=batch)  # type: ignore[assignment]
    app.url_map.converters["job"] = JobId
    app.asgi_websocket_class = inbox.Connection
    granian.init_app(app)
    app.before_request(take_up_baggage)
    app.after_request(hear_out)
    app.after_request(name_request)
    app.config.update(_cookies(app.config["ALLOWED_HOSTS"]))
    QuartSchema(
        app,
        info={"title": "Quartermaster", "version": __version__},
        swagger_ui_path=None, redoc_ui_path=None, scalar_ui_path=None,
        security_schemes={"token": {"type": "http", "scheme": "bearer"}},
        security=[{"token": []}],
        openapi_provider_class=Provider,
    )  # fmt: skip
    app.json.sort_keys = False  # type: ignore[attr-defined]  # what a task gives has its own order
    # It would convert each answer; ours are JSON already, and it takes a tenth of a request.
    del app.make_response
    problems.init_app(app)
    auth.init_app(app)
    live.init_app(app)
    uses.init_app(app)
    metrics.init_app(app)
    for part in (api, audit, lists, schedules, sockets, ops, pages, swagger):
        app.register_blueprint(part.blueprint)


def _cookies(hosts: list[str]) -> dict[str, Any]:
    """No script and no other site's form gets at them; plain HTTP is for loopback alone."""
    return {
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": not auth.LOOPBACK.issuperset(hosts),
        "SESSION_COOKIE_NAME": "quartermaster",
    }
