"""API tokens: shown once, kept as digests; and the one-time links that sign a browser in."""

import hashlib
import secrets
from collections.abc import Sequence

import uuid_utils
from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quart_app import db
from quart_app.errors import Conflict, Invalid, NotFound
from quart_app.models import Role, Token

_PREFIX = "qm_"
_LINK_SECONDS = 15 * 60


def create(session: Session, name: str, role: Role) -> str:
    """The new token, to be shown now and never again. Raises Conflict when the name is taken."""
    if not (0 < len(name) <= 100 and name.isprintable()):
        raise Invalid("name", "expected 1 to 100 printable characters")
    secret = _PREFIX + secrets.token_urlsafe(32)
    id_ = str(uuid_utils.uuid7())
    try:
        with session.begin_nested():
            session.add(
                Token(id=id_, name=name, digest=digest(secret), role=role, created_at=db.now())
            )
    except IntegrityError:
        raise Conflict(f"There is a token named {name!r} already.") from None
    return secret


def everyone(session: Session) -> list[Token]:
    return list(session.scalars(select(Token).order_by(Token.name)))


def revoke(session: Session, name: str) -> None:
    """From now on nobody signs in with it; the name may be given again."""
    if session.execute(delete(Token).where(Token.name == name)).rowcount == 0:  # type: ignore[attr-defined]
        raise NotFound(f"There is no token named {name!r}.")


def identify(session: Session, secret: str) -> Token | None:
    """The token that this text is, unless it was revoked or has ended."""
    return identify_all(session, [secret])[0]


def identify_all(session: Session, sent: Sequence[str]) -> list[Token | None]:
    """As `identify`, for each of the texts."""
    mine = [digest(secret) for secret in sent]
    found = session.scalars(select(Token).where(Token.digest.in_(set(mine)), _valid()))
    by_digest = {token.digest: token for token in found}
    return [by_digest.get(one) for one in mine]


def by_id(session: Session, token_id: str) -> Token | None:
    return session.scalar(select(Token).where(Token.id == token_id, _valid()))


def make_link(session: Session, name: str) -> str:
    """A code that signs a browser in as this token, once and within a quarter of an hour."""
    code = secrets.token_urlsafe(24)
    change = {"link_digest": digest(code), "link_until": db.now(_LINK_SECONDS)}
    if session.execute(update(Token).where(Token.name == name).values(change)).rowcount == 0:  # type: ignore[attr-defined]
        raise NotFound(f"There is no token named {name!r}.")
    return code


def redeem_link(session: Session, code: str) -> Token | None:
    """The token the code stands for; the code is used up by it."""
    open_ = (Token.link_digest == digest(code), Token.link_until > db.now(), _valid())
    token = session.scalar(select(Token).where(*open_))
    used = update(Token).where(*open_).values(link_digest=None, link_until=None)
    won = session.execute(used.execution_options(synchronize_session=False)).rowcount  # type: ignore[attr-defined]
    return token if won else None


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _valid() -> ColumnElement[bool]:
    return or_(Token.expires_at.is_(None), Token.expires_at > db.now())
