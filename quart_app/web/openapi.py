"""The description of the API: each task is an operation of its own, with its own schema."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing.rules import Rule

from quart_app import newjobs
from quart_app.web import responses
from quart_app.web.auth import PROBES
from quart_app.web.examples import example

# Of submitting by name there is an operation for each task.
_NOT_FOR_PROGRAMS = ("pages.", "swagger.", "api.submit_by_name")
_SCHEMAS = "#/components/schemas/"
#: Those whose body may be left out.
_MAY_BE_EMPTY = ("api.send_one", "api.retry")
_KEYED = ("api.send_one", "api.submit", "api.retry", "schedules.run")
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "For a day, the same key from the same caller gives the same job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


class Provider(OpenAPIProvider):
    """Describes what programs call, and leaves the pages out."""

    def schema(self) -> dict[str, Any]:
        return self._whole

    @cached_property
    def _whole(self) -> dict[str, Any]:
        """Made once, since making it holds the loop for as long as twenty other requests take."""
        whole = super().schema()
        schemas = whole["components"]["schemas"]
        schemas |= {"Problem": responses.PROBLEM}
        for name, task in newjobs.tasks_of(self._app.extensions["celery"]).items():
            body, definitions = _body(task)
            schemas |= definitions
            whole["paths"][f"/api/tasks/{name}"] = {"post": _operation(task, body, definitions)}
        return whole

    def generate_rules(self) -> Iterable[Rule]:
        for rule in super().generate_rules():
            if not rule.endpoint.startswith(_NOT_FOR_PROGRAMS):
                yield rule

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        for operations in paths.values():
            for method, operation in operations.items():
                operation["operationId"] = f"{method}_{_name(rule)}"
                if rule.endpoint in PROBES:
                    operation["security"] = []
                if rule.endpoint in _KEYED:
                    operation["parameters"] = [*operation["parameters"], _KEY]
                if body := operation.get("requestBody"):
                    _share(body["content"]["application/json"], components)
                    body["required"] = rule.endpoint not in _MAY_BE_EMPTY
                for answer in operation["responses"].values():
                    _share(answer["content"]["application/json"], components)
                operation["responses"] = responses.of(rule.endpoint, method, operation)
        return paths, components


def _name(rule: Rule) -> str:
    part, _, view = rule.endpoint.rpartition(".")
    return view if part in ("api", "lists", "ops") else f"{part}_{view}"


def _share(content: dict[str, Any], components: dict[str, Any]) -> None:
    """Has the schema described once, however many operations have it."""
    if name := content["schema"].get("title"):
        components[name] = content["schema"]
        content["schema"] = {"$ref": f"{_SCHEMAS}{name}"}


def _body(task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the task is submitted with by its name, and the models in it, under names of its own."""
    model = task.wrapped[1] if task.wrapped else task.parameters
    own = f"{task.name}."
    schema = model.model_json_schema(ref_template=f"{_SCHEMAS}{own}{{model}}")
    definitions = {f"{own}{name}": inner for name, inner in schema.pop("$defs", {}).items()}
    if "$ref" in schema:  # a model that holds itself
        schema = definitions[schema["$ref"].removeprefix(_SCHEMAS)]
    return schema, definitions


def _operation(task: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    shown = example(schema, definitions)
    operation = {
        "operationId": f"submit_{task.name}",
        "summary": (task.__doc__ or task.name).strip().partition("\n")[0],
        "parameters": [_KEY],
        "requestBody": {
            "content": {"application/json": {"schema": schema, "example": shown}},
            "required": bool(schema.get("required")),
        },
    }
    return operation | {"responses": responses.of("api.submit_by_name", "post", operation)}
