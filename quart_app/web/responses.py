"""What each operation of the API may answer: statuses, content types and headers."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "What is wrong, as the caller wrote it."},
        "parts": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Of /readyz: each part, with what is wrong with it, or ok.",
        },
    },
}
_PUBLIC = ("ops.healthz", "ops.readyz")
_MAKES_JOBS = ("api.send_one", "api.submit", "api.submit_by_name", "api.retry", "schedules.run")
#: Beside what can go wrong with every operation of its kind.
_ALSO: Mapping[str, tuple[int, ...]] = {
    "api.send_one": (409, 429),
    "api.submit": (404, 409, 429),
    "api.submit_by_name": (409, 429),
    "api.submit_batch": (404, 429),
    "api.cancel": (409,),
    "api.retry": (409, 429),
    "api.list_events": (429,),
    "audit.search": (403,),
    "ops.readyz": (503,),
    "schedules.create": (404, 409),
    "schedules.change": (409,),
    "schedules.delete": (409,),
    "schedules.run": (409, 422, 429),
    "schedules.resume": (409,),
    "schedules.show_next": (409,),
}
_JOB = {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}}
_TEXT = {"schema": {"type": "string"}}
_ID = {"schema": {"type": "string", "format": "uuid"}}
#: What is not JSON, or not only.
_CONTENT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "api.send_one": ("202", {"text/plain": _ID}),
    "api.submit_by_name": ("202", _JOB),
    "api.list_events": ("200", {"text/event-stream": _TEXT}),
    "ops.metrics": ("200", {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}),
}  # fmt: skip
#: Those that may have no more to tell.
_MAY_BE_OVER = ("api.list_events",)
_WHEN = {
    400: "The body is not JSON.",
    401: "No token, or one that is not valid (any more).",
    403: "The token's role is too low.",
    404: "There is no such thing.",
    409: "Its state, or what came before, does not allow it.",
    413: "The body is too big.",
    415: "The body is not sent as application/json.",
    422: "A value cannot be used; `field` names it.",
    429: "Too much at once: try again later.",
    503: "The database does not answer, or another part that is needed: try again soon.",
}
_LATER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_WHERE = {"Location": {"description": "The path of the job.", "schema": {"type": "string"}}}


def of(endpoint: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """The responses of an operation, those that are described already first."""
    described = {str(code): answer for code, answer in operation.get("responses", {}).items()}
    status, content = _CONTENT.get(endpoint, ("204" if method == "delete" else "200", {}))
    if content or not described:
        answer = described.setdefault(status, {})
        if content:
            answer["content"] = answer.get("content", {}) | content
    if endpoint in _MAY_BE_OVER:
        described["204"] = {}
    for code, answer in described.items():
        answer["description"] = answer.get("description") or HTTPStatus(int(code)).phrase
        if endpoint in _MAKES_JOBS and code == "202":
            answer["headers"] = _WHERE
    return described | {
        str(code): _refused(code)
        for code in sorted(set(_refusals(endpoint, method, operation)))
        if str(code) not in described
    }


def _refusals(endpoint: str, method: str, operation: Mapping[str, Any]) -> Iterator[int]:
    places = {parameter["in"] for parameter in operation["parameters"]}
    if endpoint not in _PUBLIC:
        yield from (401, 503)
    if method not in ("get", "head"):
        yield 403
    if "requestBody" in operation:
        yield from (400, 413, 415, 422)
    if "query" in places:
        yield 422
    if "path" in places:
        yield 404
    yield from _ALSO.get(endpoint, ())


def _refused(code: int) -> dict[str, Any]:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        "description": _WHEN[code],
        "content": {"application/problem+json": problem},
        **({"headers": _LATER} if code in (429, 503) else {}),
    }
