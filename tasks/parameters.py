"""A task's parameters: checked when a job is submitted, and given to the body in their types."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, create_model

from quart_app.errors import Invalid

_Kind = inspect.Parameter
#: For one that says itself how it is read and described.
_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)


class Parameters(BaseModel):
    # The fields have names of their own, since a parameter may be called anything: its own name is
    # the alias.
    model_config = _ANY_TYPE
    #: The names of those that may be given by position, and how many of them only so.
    by_position: ClassVar[Sequence[str]] = ()
    never_by_name: ClassVar[int] = 0
    #: With one field, `rest`, for what may follow them.
    others: ClassVar[type[BaseModel] | None] = None


@dataclass(frozen=True)
class Bound:
    """Arguments that fit, those given by position still in their places."""

    model: Parameters
    #: The parameters given by position, and what follows them.
    positional: Sequence[str]
    others: BaseModel | None = None

    def stored(self) -> tuple[list[Any], dict[str, Any]]:
        """As JSON, for the job's row; what was not given is left out."""
        by_name = self.model.model_dump(mode="json", exclude_unset=True, by_alias=True)
        rest = self.others.model_dump(mode="json")["rest"] if self.others else []
        return [*(by_name.pop(name) for name in self.positional), *rest], by_name

    def typed(self) -> tuple[list[Any], dict[str, Any]]:
        """In the types of the signature, for the body."""
        keys = {str(field.alias): key for key, field in type(self.model).model_fields.items()}
        given = self.model.model_fields_set
        by_name = {name: getattr(self.model, key) for name, key in keys.items() if key in given}
        by_name |= self.model.model_extra or {}
        args = [by_name.pop(name) for name in self.positional]
        for name in self._in_its_place(by_name):
            args.append(by_name.pop(name, getattr(self.model, keys[name])))
        return [*args, *getattr(self.others, "rest", ())], by_name

    def _in_its_place(self, by_name: Mapping[str, Any]) -> Sequence[str]:
        """Those that the body takes by position alone, to the last that was given by name."""
        names = self.model.by_position[len(self.positional) : self.model.never_by_name]
        last = max((index for index, name in enumerate(names) if name in by_name), default=-1)
        return names[: last + 1]


def model_of(name: str, function: Callable[..., Any]) -> type[Parameters]:
    """The signature as a model: its JSON Schema is what callers see.

    Raises TypeError, naming the parameter, where it can have none.
    """
    module = function.__module__
    of_kind: dict[Any, list[inspect.Parameter]] = defaultdict(list)
    for parameter in inspect.signature(function).parameters.values():
        of_kind[parameter.kind].append(parameter)
    only, usual = of_kind[_Kind.POSITIONAL_ONLY], of_kind[_Kind.POSITIONAL_OR_KEYWORD]
    named = [*only, *usual, *of_kind[_Kind.KEYWORD_ONLY]]
    fields: Any = {f"p{index}": _field(parameter, module) for index, parameter in enumerate(named)}
    extra = "allow" if of_kind[_Kind.VAR_KEYWORD] else "forbid"
    model = create_model(
        name, __base__=Parameters, __module__=module, __cls_kwargs__={"extra": extra}, **fields
    )
    model.by_position, model.never_by_name = [each.name for each in only + usual], len(only)
    for each in of_kind[_Kind.VAR_POSITIONAL]:
        rest: Any = {"rest": (GenericAlias(list, (_described(each, module),)), ...)}
        model.others = create_model("Rest", __config__=_ANY_TYPE, __module__=module, **rest)
    return model


def only_model(model: type[Parameters]) -> tuple[str, type[BaseModel]] | None:
    """The name and the type of a task's one parameter, where that is a pydantic model."""
    named = {str(field.alias): field.annotation for field in model.model_fields.values()}
    for name, type_ in named.items():
        alone = len(named) == 1 and model.model_config["extra"] == "forbid" and not model.others
        if alone and inspect.isclass(type_) and issubclass(type_, BaseModel):
            return None if issubclass(type_, RootModel) else (name, type_)
    return None


def bind(model: type[Parameters], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bound:
    """Raises Invalid, naming the first argument that does not fit as the caller wrote it."""
    names = model.by_position[: len(args)]
    rest = args[len(names) :]
    if rest and not model.others:
        raise Invalid("args", f"{model.__name__} takes {len(names)} at most")
    if twice := set(names) & kwargs.keys():
        raise Invalid(f"kwargs.{min(twice)}", "given in args as well")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    try:
        bound = model.model_validate(given)
    except ValidationError as error:
        raise _invalid(error, names, model) from None
    return Bound(bound, names, _others(model, rest, len(names)))


def _others(model: type[Parameters], rest: Sequence[Any], before: int) -> BaseModel | None:
    try:
        return model.others.model_validate({"rest": rest}) if model.others else None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        _, index, *inner = first["loc"]
        raise _told(first, f"args.{before + int(index)}", *map(str, inner)) from None


def _field(parameter: inspect.Parameter, module: str) -> tuple[Any, Any]:
    annotation = _described(parameter, module)
    if parameter.default is parameter.empty:
        return annotation, Field(alias=parameter.name)
    return annotation, Field(parameter.default, alias=parameter.name)


def _described(parameter: inspect.Parameter, module: str) -> Any:
    """Its type, checked by a model of it alone, which tells one parameter from the others.

    Names are the module's.
    """
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    alone: Any = {"it": (annotation, ...)}
    try:
        model = create_model("Alone", __config__=_ANY_TYPE, __module__=module, **alone)
        model.model_rebuild()
        model.model_json_schema()
    except Exception as error:  # an annotation may be anything, and raise anything
        reason = str(error).partition("\n")[0]
        expected = "expected a type that has a JSON Schema"
        raise TypeError(f"parameter {parameter}: {expected} ({reason})") from None
    return annotation


def _invalid(error: ValidationError, names: Sequence[str], model: type[Parameters]) -> Invalid:
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
    return _told(first, where, *inner)


def _told(error: Any, *where: str) -> Invalid:
    message = error["msg"].removeprefix("Value error, ")
    return Invalid(".".join(where), message[:1].lower() + message[1:])
