"""The record of who changed what: with the act or not at all, by whoever asked for it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from quart_app import actors, baggage, db, jobs, tokens
from quart_app.actors import Actor
from quart_app.models import AuditEntry, Role
from tests.book import Book


def entries(book: Book) -> list[AuditEntry]:
    return book(lambda session: list(session.scalars(select(AuditEntry).order_by(AuditEntry.id))))


def as_(actor: Actor, verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb, done by someone."""

    def body(*args: Any, **options: Any) -> Any:
        actors.carry(actor)
        return verb(*args, **options)

    return body


def test_an_entry_says_who_did_what_to_what(book: Book) -> None:
    job = book.submit(delay=60)
    book(as_(Actor("ada", "api"), jobs.cancel), job.id)
    (entry,) = entries(book)
    assert (entry.actor, entry.via, entry.action) == ("ada", "api", "job.cancel")
    assert (entry.target, entry.detail) == (job.id, {"task": job.task})


def test_what_is_rolled_back_leaves_no_entry(book: Book) -> None:
    def body(session: Any) -> None:
        tokens.create(session, "ada", Role.VIEWER)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        book(body)
    assert entries(book) == []


def test_a_task_acts_for_whoever_asked_for_its_job(book: Book) -> None:
    job = book.submit(delay=60)

    def body(session: Any) -> None:
        baggage.carry(baggage.Baggage(user="ada", request_id="r1"))
        jobs.cancel(session, job.id)

    book(body)
    (entry,) = entries(book)
    assert (entry.actor, entry.via, entry.request_id) == ("ada", "code", "r1")


def test_no_entry_holds_a_secret(book: Book) -> None:
    secret = book(tokens.create, "ada", Role.ADMIN, tasks=["x.*"])
    code = book(tokens.make_link, "ada")
    book(tokens.redeem_link, code)
    book(tokens.redeem_link, "guessed")
    book(tokens.sign_in, secret)
    book(tokens.revoke, "ada")
    told = " ".join(str(vars(entry)) for entry in entries(book))
    assert told.count("'action'") == 5
    for word in (secret, code, "guessed", tokens.digest(secret), tokens.digest(code)):
        assert word not in told


def test_of_strangers_who_try_one_a_second_is_told(book: Book) -> None:
    book(tokens.redeem_link, "guessed")
    (first,) = entries(book)
    book.set(first, at=db.now(3600))
    book(tokens.redeem_link, "guessed")
    book(tokens.sign_in, "guessed")
    assert len(entries(book)) == 1
    book.set(first, at=db.now(-2))
    book(tokens.sign_in, "guessed")
    assert [entry.detail for entry in entries(book)] == [{"by": "link"}, {"by": "token"}]


def test_limits_of_a_new_token_are_told(book: Book) -> None:
    book(tokens.create, "ada", Role.ADMIN, tasks=["x.*"])
    (entry,) = entries(book)
    assert entry.detail == {"role": "admin", "tasks": ["x.*"]}


def test_patterns_are_those_of_a_shell_and_mind_the_case(book: Book) -> None:
    ada = Actor("ada", "api", ("tasks.background.*", "one.t?sk"))
    may = ("tasks.background.x", "tasks.background.x.y", "one.task")
    may_not = ("tasks.backgroundx", "tasks.Background.x", "one.tsk", "my.one.task", "")
    assert [ada.may_use(task) for task in (*may, *may_not)] == [True] * 3 + [False] * 5
    assert Actor("bob", "api").may_use("anything")
