"""An example of what a JSON Schema describes, for whoever reads the API's description."""

from collections.abc import Mapping
from typing import Any

_BY_FORMAT = {
    "date-time": "2030-01-01T09:00:00+08:00", "date": "2030-01-01", "time": "09:00:00+08:00",
    "duration": "PT1H", "uuid": "0195d6a4-7c00-7000-8000-000000000000", "uri": "https://example.com/",
    "email": "somebody@example.com", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1", "binary": "text",
}  # fmt: skip
Schema = Mapping[str, Any]


def example(schema: Schema, definitions: Mapping[str, Schema]) -> Any:
    """What the schema itself gives as an example, else the least that fits it."""
    if "$ref" in schema:
        return example(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for known in ("examples", "enum"):
        if schema.get(known):
            return schema[known][0]
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return example(schema[several][0], definitions)
    return _BY_TYPE.get(schema.get("type", ""), _anything)(schema, definitions)


def _object(schema: Schema, definitions: Mapping[str, Schema]) -> dict[str, Any]:
    """What has to be there, and what has an example of its own."""
    required = schema.get("required", ())
    return {
        name: example(field, definitions)
        for name, field in schema.get("properties", {}).items()
        if name in required or field.get("examples")
    }


def _array(schema: Schema, definitions: Mapping[str, Schema]) -> list[Any]:
    if "prefixItems" in schema:
        return [example(item, definitions) for item in schema["prefixItems"]]
    return [example(schema.get("items", {}), definitions)] * schema.get("minItems", 1)


def _text(schema: Schema, _: Mapping[str, Schema]) -> str:
    text = _BY_FORMAT.get(schema.get("format", ""), "text")
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _number(schema: Schema, _: Mapping[str, Schema]) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 2) - 1)
    number: float = min(max(low, schema.get("multipleOf", low)), max(high, low))
    return number


def _anything(_: Schema, __: Mapping[str, Schema]) -> str:
    return "anything"


_BY_TYPE = {
    "object": _object, "array": _array, "string": _text, "integer": _number, "number": _number,
    "boolean": lambda *_: True, "null": lambda *_: None,
}  # fmt: skip
