"""Arguments against every kind of parameter: refused before there is a job, or fit for the body."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from quart_app.errors import Invalid
from tasks.parameters import bind, model_of
from tests.ledger import Ledger


def plain(a: int, b: int = 2) -> Any:
    return a, b


def keyword_only(a: int, *, b: int = 2) -> Any:
    return a, b


def position_only(a: int = 1, b: int = 2, /, c: int = 3) -> Any:
    return a, b, c


def any_number(a: int = 1, *days: date, b: int = 2, **more: int) -> Any:
    return a, days, b, more


DAYS = ["2030-01-01", "2030-01-02"]


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "outcome"),
    [
        (plain, ["1"], {}, (1, 2)),
        (plain, [1], {"b": 3}, (1, 3)),
        (keyword_only, [1], {"b": 3}, (1, 3)),
        (position_only, [], {"b": 5}, (1, 5, 3)),
        (position_only, [4], {"b": 5, "c": 6}, (4, 5, 6)),
        (position_only, [], {}, (1, 2, 3)),
        (any_number, [], {"b": 3}, (1, (), 3, {})),
        (any_number, [], {"a": 3}, (3, (), 2, {})),
        (any_number, [5, *DAYS], {"x": 1}, (5, (date(2030, 1, 1), date(2030, 1, 2)), 2, {"x": 1})),
    ],
)
def test_what_fits_reaches_the_body(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], outcome: Any
) -> None:
    model = model_of("f", function)
    args, kwargs = bind(model, *bind(model, args, kwargs).stored()).typed()
    assert function(*args, **kwargs) == outcome


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "told"),
    [
        (plain, [1, 2, 3], {}, "args: f takes 2 at most"),
        (plain, [1], {"a": 2}, "kwargs.a: given in args as well"),
        (keyword_only, [1, 2], {}, "args: f takes 1 at most"),
        (position_only, [1, 2, 3, 4], {}, "args: f takes 3 at most"),
        (any_number, [1, DAYS[0], "soon"], {}, "args.2: input should be a valid date"),
    ],
)
def test_what_does_not_is_named_as_the_caller_wrote_it(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid) as wrong:
        bind(model_of("f", function), args, kwargs)
    assert str(wrong.value).startswith(told)


def test_the_schema_tells_of_what_has_a_name() -> None:
    schema = model_of("f", any_number).model_json_schema(by_alias=True)
    assert list(schema) == ["additionalProperties", "properties", "title", "type"]
    assert list(schema["properties"]) == ["a", "b"]


def test_a_task_takes_any_number_of_arguments(ledger: Ledger, worker: Path) -> None:
    job_id = ledger.submit("total", 1, 2, 3, kwargs={"factor": 2})
    assert ledger.ended(job_id).result == 12
    assert ledger.job(job_id).args == [1, 2, 3]
