"""A task's parameters: checked when a job is submitted, and given to the body in their types."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, create_model

from quart_app.errors import Invalid

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: For one that says itself how it is read and described.
_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Bound:
    """Arguments that fit, those given by position still in their places."""

    model: BaseModel
    #: The parameters given by position.
    positional: Sequence[str]

    def stored(self) -> tuple[list[Any], dict[str, Any]]:
        """As JSON, for the job's row; what was not given is left out."""
        by_name = self.model.model_dump(mode="json", exclude_unset=True, by_alias=True)
        return [by_name.pop(name) for name in self.positional], by_name

    def typed(self) -> tuple[list[Any], dict[str, Any]]:
        """In the types of the signature, for the body."""
        fields = type(self.model).model_fields
        by_name = {
            str(fields[key].alias): getattr(self.model, key)
            for key in fields
            if key in self.model.model_fields_set
        } | (self.model.model_extra or {})
        return [by_name.pop(name) for name in self.positional], by_name


def model_of(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    """The signature as a model: its JSON Schema is what callers see.

    Raises TypeError, naming the parameter, where it can have none.
    """
    signature = inspect.signature(function)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    extra: Any = "allow" if inspect.Parameter.VAR_KEYWORD in kinds else "forbid"
    named = [p for p in signature.parameters.values() if p.kind not in _VARIABLE]
    # Fields get names of their own, since a parameter may be called anything.
    module = function.__module__
    fields: Any = {f"p{index}": _field(parameter, module) for index, parameter in enumerate(named)}
    return create_model(name, __config__=_ANY_TYPE | {"extra": extra}, __module__=module, **fields)


def only_model(model: type[BaseModel]) -> tuple[str, type[BaseModel]] | None:
    """The name and the type of a task's one parameter, where that is a pydantic model."""
    named = {str(field.alias): field.annotation for field in model.model_fields.values()}
    for name, type_ in named.items():
        alone = len(named) == 1 and model.model_config["extra"] == "forbid"
        if alone and inspect.isclass(type_) and issubclass(type_, BaseModel):
            return None if issubclass(type_, RootModel) else (name, type_)
    return None


def bind(model: type[BaseModel], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bound:
    """Raises Invalid, naming the first argument that does not fit as the caller wrote it."""
    names = [str(field.alias) for field in model.model_fields.values()][: len(args)]
    if len(names) < len(args):
        raise Invalid("args", f"{model.__name__} takes {len(names)} at most")
    if twice := set(names) & kwargs.keys():
        raise Invalid(f"kwargs.{min(twice)}", "given in args as well")
    given = dict(zip(names, args, strict=True)) | dict(kwargs)
    try:
        return Bound(model.model_validate(given), names)
    except ValidationError as error:
        raise _invalid(error, names, model) from None


def _field(parameter: inspect.Parameter, module: str) -> tuple[Any, Any]:
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    _check_is_described(parameter, annotation, module)
    if parameter.default is parameter.empty:
        return annotation, Field(alias=parameter.name)
    return annotation, Field(parameter.default, alias=parameter.name)


def _check_is_described(parameter: inspect.Parameter, annotation: Any, module: str) -> None:
    """By a model of it alone, which tells one parameter from the others; names are the module's."""
    alone: Any = {"it": (annotation, ...)}
    try:
        model = create_model("Alone", __config__=_ANY_TYPE, __module__=module, **alone)
        model.model_rebuild()
        model.model_json_schema()
    except Exception as error:  # an annotation may be anything, and raise anything
        reason = str(error).partition("\n")[0]
        expected = "expected a type that has a JSON Schema"
        raise TypeError(f"parameter {parameter}: {expected} ({reason})") from None


def _invalid(error: ValidationError, names: Sequence[str], model: type[BaseModel]) -> Invalid:
    """The first wrong parameter, and what is wrong with it; one that is unknown before others.

    It may be one of those that are missing, misspelt.
    """
    wrong = error.errors(include_url=False)
    for unknown in wrong:
        if unknown["type"] == "extra_forbidden" and len(unknown["loc"]) == 1:
            known = [str(field.alias) for field in model.model_fields.values()]
            expected = f"expected one of {', '.join(known)}" if known else "the task takes none"
            return Invalid(f"kwargs.{unknown['loc'][0]}", f"unknown; {expected}")
    first = wrong[0]
    name, *inner = [str(part) for part in first["loc"]] or [""]
    where = f"args.{names.index(name)}" if name in names else f"kwargs.{name}"
    message = first["msg"].removeprefix("Value error, ")
    return Invalid(".".join([where, *inner]), message[:1].lower() + message[1:])
