"""A task whose one parameter is a pydantic model takes the fields of it as its body."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, RootModel

from tasks.parameters import model_of, only_model
from tests.book import Book
from tests.ledger import Ledger
from tests.sample_tasks import Order
from tests.web.test_problems import problem

PATH, NAME = "/api/tasks/tests.sample_tasks.deliver", "tests.sample_tasks.deliver"
FULL = {"item": "茶 🍵", "count": 2, "at": {"x": 1}, "due": "2030-01-01T09:00:00+08:00"}


async def submitted(client: Any, path: str, body: Any) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 202, await answer.get_data()
    job: dict[str, Any] = await answer.get_json()
    return job


async def test_its_fields_are_the_body_and_are_stored_as_plain_json(client: Any) -> None:
    job = await submitted(client, PATH, FULL)
    assert (job["args"], job["kwargs"]) == ([], {"order": FULL})
    assert (await submitted(client, PATH, {"item": "tea"}))["kwargs"] == {"order": {"item": "tea"}}


async def test_its_keyword_argument_is_taken_as_well(client: Any) -> None:
    for path, body in (
        (PATH, {"order": FULL}),
        ("/api/jobs", {"task": NAME, "kwargs": {"order": FULL}}),
        ("/api/jobs", {"task": NAME, "args": [FULL]}),
    ):
        job = await submitted(client, path, body)
        assert [*job["args"], *job["kwargs"].values()] == [FULL]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "item"), ({"item": ""}, "item"), ({"item": "x", "count": 0}, "count"),
    ({"item": "x", "at": {"x": "one"}}, "at.x"), ({"order": {"count": 1}}, "order.item"),
    ({"item": "\0"}, "item"), ({"item": "\ud800"}, "item"),
]  # fmt: skip


async def test_what_is_wrong_is_named_as_it_stands_in_the_body(client: Any) -> None:
    for body, field in WRONG:
        assert (await problem(await client.post(PATH, json=body), 422))["field"] == field, body
    add = "/api/tasks/tests.sample_tasks.add"
    assert (await problem(await client.post(add, json={"left": "x"}), 422))["field"] == "left"


@pytest.mark.usefixtures("worker")
def test_the_body_gets_an_instance(ledger: Ledger) -> None:
    job = ledger.submit("deliver", kwargs={"order": FULL})
    kinds = {"at": "Point", "due": "datetime"}
    assert ledger.ended(job).result == {"type": "Order", "item": "茶 🍵", "count": 2, **kinds}


def test_an_instance_is_submitted_from_python(book: Book) -> None:
    job = book.submit(NAME, args=[Order(item="tea", count=3)])
    assert book.job(job.id).args == [{"item": "tea", "count": 3}]


def two(order: Order, more: int = 0) -> None: ...
def perhaps(order: Order | None = None) -> None: ...
def many(order: Order, **more: int) -> None: ...
def a_list(order: RootModel[list[int]]) -> None: ...
def number(order: int) -> None: ...
def nothing() -> None: ...
def noted(order: Annotated[Order, Field(description="What is wanted.")]) -> None: ...
def by_default(order: Order = Order(item="tea")) -> None: ...  # noqa: B008


@pytest.mark.parametrize("function", [two, perhaps, many, a_list, number, nothing])
def test_of_other_parameters_each_is_named(function: Any) -> None:
    assert only_model(model_of("x", function)) is None


@pytest.mark.parametrize("function", [noted, by_default])
def test_a_model_is_seen_through_what_is_said_of_it(function: Any) -> None:
    found = only_model(model_of("x", function))
    assert found == ("order", Order)
    assert issubclass(found[1], BaseModel)
