"""The description of the API: each task is an operation of its own, with its own schema."""

from collections.abc import Iterable
from typing import Any

from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing.rules import Rule

from quart_app.web.auth import PROBES

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
    },
}
_REFUSED = {
    "description": "What went wrong.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_USUAL = {"post": "202", "delete": "204"}
# Of submitting by name there is an operation for each task.
_NOT_FOR_PROGRAMS = ("pages.", "swagger.", "api.submit_by_name")
_BODY_OPTIONAL = ("api.send_one",)
_REFERENCE = "#/components/schemas/{model}"


class Provider(OpenAPIProvider):
    """Describes what programs call, and leaves the pages out."""

    def schema(self) -> dict[str, Any]:
        whole = super().schema()
        schemas = whole["components"]["schemas"]
        schemas["Problem"] = _PROBLEM
        for task in self._app.extensions["celery"].tasks.values():
            if hasattr(task, "check"):
                parameters = task.parameters.model_json_schema(ref_template=_REFERENCE)
                schemas |= parameters.pop("$defs", {})
                whole["paths"][f"/api/tasks/{task.name}"] = {"post": _operation(task, parameters)}
        return whole

    def generate_rules(self) -> Iterable[Rule]:
        for rule in super().generate_rules():
            if not rule.endpoint.startswith(_NOT_FOR_PROGRAMS):
                yield rule

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        for operations in paths.values():
            for method, operation in operations.items():
                described = {str(code): body for code, body in operation["responses"].items()}
                usual = _responses(_USUAL.get(method, "200"))
                operation["operationId"] = f"{method}_{_name(rule)}"
                if "requestBody" in operation:
                    operation["requestBody"]["required"] = rule.endpoint not in _BODY_OPTIONAL
                if rule.endpoint in PROBES:
                    operation["security"] = []
                operation["responses"] = described | {"default": _REFUSED} if described else usual
        return paths, components


def _name(rule: Rule) -> str:
    return rule.endpoint.removeprefix("api.").removeprefix("ops.").replace(".", "_")


def _operation(task: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": parameters}}
    body = {"content": content, "required": "required" in parameters}
    return {
        "operationId": f"submit_{task.name}",
        "summary": (task.__doc__ or task.name).strip().partition("\n")[0],
        "requestBody": body,
        "responses": _responses("202"),
    }


def _responses(status: str) -> dict[str, Any]:
    return {status: {"description": "Done, or accepted."}, "default": _REFUSED}
