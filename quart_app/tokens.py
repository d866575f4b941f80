"""API tokens: shown once, kept as digests; and the one-time links that sign a browser in."""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import uuid_utils
from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quart_app import audit, db
from quart_app.errors import Conflict, Invalid, NotFound
from quart_app.events import timestamp
from quart_app.models import AuditEntry, Role, Token
from quart_app.newjobs import check_time

_PREFIX = "qm_"
_LINK_SECONDS = 15 * 60
#: Seconds between two times that a token's use is written down.
USE_SECONDS = 60
_MOST_TASKS = 100


def create(
    session: Session,
    name: str,
    role: Role,
    *,
    expires: datetime | timedelta | None = None,
    tasks: Sequence[str] = (),
) -> str:
    """The new token, to be shown now and never again.

    `tasks` are patterns of the tasks it may use, such as `tasks.background.*`; none means all.
    Raises Invalid, and Conflict when the name is taken.
    """
    _check_text("name", name, 100)
    for pattern in tasks:
        _check_text("task", pattern, 255)
    if len(tasks) > _MOST_TASKS:
        raise Invalid("task", f"expected at most {_MOST_TASKS} patterns")
    at = db.clock(session)
    secret = _PREFIX + secrets.token_urlsafe(32)
    token = Token(
        id=str(uuid_utils.uuid7()), name=name, digest=digest(secret), role=role,
        created_at=at, expires_at=_end(expires, at), tasks=list(tasks) or None,
    )  # fmt: skip
    try:
        with session.begin_nested():
            session.add(token)
    except IntegrityError:
        raise Conflict(f"There is a token named {name!r} already.") from None
    audit.record(session, "token.create", name, role=role.value, **_limits(token))
    return secret


def everyone(session: Session) -> list[Token]:
    return list(session.scalars(select(Token).order_by(Token.name)))


def revoke(session: Session, name: str) -> None:
    """From now on nobody signs in with it; the name may be given again."""
    if session.execute(delete(Token).where(Token.name == name)).rowcount == 0:  # type: ignore[attr-defined]
        raise NotFound(f"There is no token named {name!r}.")
    audit.record(session, "token.revoke", name)


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


def valid_ids(session: Session, token_ids: Collection[str]) -> set[str]:
    """Those of the ids whose tokens were neither revoked nor have ended."""
    return set(session.scalars(select(Token.id).where(Token.id.in_(token_ids), _valid())))


def sign_in(session: Session, secret: str) -> Token | None:
    """As `identify`, for a browser that is to have a session of it."""
    return _let_in(session, identify(session, secret), "token")


def note_use(session: Session, token_ids: Collection[str]) -> None:
    """Writes down that these were used, of each at most once a minute."""
    old = or_(Token.used_at.is_(None), Token.used_at < db.now(-USE_SECONDS))
    used = update(Token).where(Token.id.in_(token_ids), old).values(used_at=db.now())
    session.execute(used.execution_options(synchronize_session=False))


def make_link(session: Session, name: str) -> str:
    """A code that signs a browser in as this token, once and within a quarter of an hour.

    Raises NotFound for one that was revoked or has ended.
    """
    code = secrets.token_urlsafe(24)
    change = {"link_digest": digest(code), "link_until": db.now(_LINK_SECONDS)}
    known = update(Token).where(Token.name == name, _valid()).values(change)
    if session.execute(known).rowcount == 0:  # type: ignore[attr-defined]
        raise NotFound(f"There is no token named {name!r} that is valid.")
    return code


def redeem_link(session: Session, code: str) -> Token | None:
    """The token the code stands for; the code is used up by it."""
    open_ = (Token.link_digest == digest(code), Token.link_until > db.now(), _valid())
    token = session.scalar(select(Token).where(*open_))
    used = update(Token).where(*open_).values(link_digest=None, link_until=None)
    won = session.execute(used.execution_options(synchronize_session=False)).rowcount  # type: ignore[attr-defined]
    return _let_in(session, token if won else None, "link")


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _let_in(session: Session, token: Token | None, by: str) -> Token | None:
    """The same, once it is written down who came in, or that a stranger tried to."""
    if token:
        audit.record(session, "token.sign-in", token.name, actor=token.name, by=by)
    elif not _was_refused_lately(session):
        audit.record(session, "token.refuse", None, actor="", by=by)
    return token


def _was_refused_lately(session: Session) -> bool:
    """Within a second: strangers must not fill the table, however often they try."""
    lately = (AuditEntry.at > db.now(-1), AuditEntry.action == "token.refuse")
    return session.scalar(select(AuditEntry.id).where(*lately).limit(1)) is not None


def _check_text(field: str, text: str, most: int) -> None:
    if not (0 < len(text) <= most and text.isprintable()):
        raise Invalid(field, f"expected 1 to {most} printable characters")


def _end(expires: datetime | timedelta | None, at: datetime) -> datetime | None:
    try:
        end = at + expires if isinstance(expires, timedelta) else expires
    except OverflowError:
        raise Invalid("expires", "expected a time that a calendar knows") from None
    if end:
        check_time("expires", end)
        if end <= at:
            raise Invalid("expires", "expected a time to come")
    return end


def _limits(token: Token) -> dict[str, Any]:
    """Those that it has, for the record."""
    ends: dict[str, Any] = {"expires_at": timestamp(token.expires_at)} if token.expires_at else {}
    return ends | ({"tasks": token.tasks} if token.tasks else {})


def _valid() -> ColumnElement[bool]:
    return or_(Token.expires_at.is_(None), Token.expires_at > db.now())
