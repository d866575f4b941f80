"""Tokens: shown once, kept as digests, and links that sign in once."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from quart_app import tokens
from quart_app.errors import Conflict, Invalid, NotFound
from quart_app.models import Role, Token
from tests.book import Book, at_once


@pytest.fixture
def secret(book: Book) -> str:
    return book(tokens.create, "ada", Role.OPERATOR)


def row(book: Book) -> Token:
    return book(lambda session: session.scalars(select(Token)).one())


def test_the_table_keeps_a_digest_and_never_the_token(book: Book, secret: str) -> None:
    code = book(tokens.make_link, "ada")
    kept = " ".join(str(value) for value in vars(row(book)).values())
    assert secret not in kept
    assert secret.removeprefix("qm_") not in kept
    assert code not in kept
    assert row(book).digest == tokens.digest(secret)


def test_a_token_is_known_by_its_whole_text_alone(book: Book, secret: str) -> None:
    found = book(tokens.identify, secret)
    assert found
    assert (found.name, found.role) == ("ada", Role.OPERATOR)
    for wrong in (
        "",
        secret[:-1],
        secret + "x",
        secret.upper(),
        row(book).digest,
        "世界",
        "\udc80",
    ):
        assert book(tokens.identify, wrong) is None


def test_every_token_is_another(book: Book) -> None:
    secrets = {book(tokens.create, f"name {n}", Role.VIEWER) for n in range(10)}
    assert len(secrets) == 10
    assert all(len(secret) > 40 for secret in secrets)


def test_a_revoked_token_is_nobodys_and_its_name_is_free(book: Book, secret: str) -> None:
    id_ = row(book).id
    book(tokens.revoke, "ada")
    assert book(tokens.identify, secret) is None
    assert book(tokens.by_id, id_) is None
    with pytest.raises(NotFound):
        book(tokens.revoke, "ada")
    assert book(tokens.create, "ada", Role.VIEWER) != secret


def test_a_token_ends_at_its_time(book: Book, secret: str) -> None:
    token = row(book)
    book.set(token, expires_at=token.created_at + timedelta(hours=1))
    assert book(tokens.by_id, token.id)
    code = book(tokens.make_link, "ada")
    book.set(row(book), expires_at=token.created_at - timedelta(seconds=1))
    assert book(tokens.identify, secret) is None
    assert book(tokens.by_id, token.id) is None
    assert book(tokens.redeem_link, code) is None
    with pytest.raises(NotFound):
        book(tokens.make_link, "ada")


def test_a_name_is_given_once_also_at_once(book: Book) -> None:
    made = at_once([partial(book, tokens.create, "ada", Role.ADMIN)] * 6)
    assert len([secret for secret in made if isinstance(secret, str)]) == 1
    assert {type(error) for error in made if not isinstance(error, str)} == {Conflict}


def test_names_that_differ_by_a_letter_are_different_names(book: Book, secret: str) -> None:
    for name in ("Ada", "áda", "ada 😀", "ada 😁"):
        book(tokens.create, name, Role.VIEWER)
    assert len(book(tokens.everyone)) == 5
    assert secret


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "a\0b", "\udc80"])
def test_a_name_that_cannot_be_shown_is_refused(book: Book, name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        book(tokens.create, name, Role.VIEWER)


def test_a_link_signs_in_once(book: Book, secret: str) -> None:
    code = book(tokens.make_link, "ada")
    found = book(tokens.redeem_link, code)
    assert found
    assert found.digest == tokens.digest(secret)
    assert book(tokens.redeem_link, code) is None
    assert book(tokens.redeem_link, "another") is None


def test_of_those_who_use_a_link_at_once_one_gets_in(book: Book, secret: str) -> None:
    code = book(tokens.make_link, "ada")
    used = at_once([partial(book, tokens.redeem_link, code)] * 8)
    assert [type(token) for token in used if token] == [Token]
    assert secret


def test_a_link_that_another_has_used_just_then_lets_nobody_in(book: Book, secret: str) -> None:
    code = book(tokens.make_link, "ada")
    used = "UPDATE tokens SET link_digest = NULL, link_until = NULL"
    with book.interrupted(used, before="UPDATE tokens"):
        assert book(tokens.redeem_link, code) is None
    assert secret


def test_a_link_ends_after_a_quarter_of_an_hour(book: Book, secret: str) -> None:
    code, token = book(tokens.make_link, "ada"), row(book)
    assert token.link_until
    assert token.link_until - token.created_at < timedelta(minutes=16)
    book.set(token, link_until=token.created_at - timedelta(seconds=1))
    assert book(tokens.redeem_link, code) is None
    assert secret


def test_a_new_link_takes_the_place_of_the_old(book: Book, secret: str) -> None:
    old, new = (book(tokens.make_link, "ada") for _ in range(2))
    assert book(tokens.redeem_link, old) is None
    assert book(tokens.redeem_link, new)
    with pytest.raises(NotFound):
        book(tokens.make_link, "nobody")
    assert secret


def test_a_token_may_be_made_to_end(book: Book) -> None:
    for name, expires in (("span", timedelta(days=30)), ("time", datetime(2999, 1, 1, tzinfo=UTC))):
        book(tokens.create, name, Role.VIEWER, expires=expires)
    at, span = (token.expires_at for token in reversed(book(tokens.everyone)))
    created = book(tokens.everyone)[0].created_at
    assert at == datetime(2999, 1, 1, tzinfo=UTC)
    assert span == created + timedelta(days=30)


@pytest.mark.parametrize(
    "expires",
    [
        timedelta(0), timedelta(days=-1), timedelta(days=999_999), datetime(2999, 1, 1),  # noqa: DTZ001
        datetime(2020, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC),
    ],
)  # fmt: skip
def test_an_end_that_is_none_is_refused(book: Book, expires: Any) -> None:
    with pytest.raises(Invalid, match="expires"):
        book(tokens.create, "ada", Role.VIEWER, expires=expires)
    assert book.count(Token) == 0


@pytest.mark.parametrize("tasks", [[""], ["a\nb"], ["x" * 256], ["x"] * 101])
def test_a_pattern_that_cannot_be_one_is_refused(book: Book, tasks: list[str]) -> None:
    with pytest.raises(Invalid, match="task"):
        book(tokens.create, "ada", Role.VIEWER, tasks=tasks)
    assert book.count(Token) == 0


def test_its_use_is_written_down_at_most_once_a_minute(book: Book, secret: str) -> None:
    token = row(book)
    assert token.used_at is None
    book(tokens.note_use, {token.id, "of nobody"})
    first = row(book).used_at
    assert first
    book(tokens.note_use, {token.id})
    assert row(book).used_at == first
    book.set(row(book), used_at=first - timedelta(seconds=61))
    book(tokens.note_use, {token.id})
    assert row(book).used_at not in (None, first - timedelta(seconds=61))
