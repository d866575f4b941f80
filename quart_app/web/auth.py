"""Who may do what: tokens and sessions, roles, and proof that a form is our own."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from quart import Quart, Response, current_app, g, render_template, request, session
from quart import websocket as socket
from werkzeug.exceptions import BadRequest, Forbidden, UnsupportedMediaType

from quart_app import actors, baggage, db, tokens
from quart_app.actors import Actor
from quart_app.models import Role, Token
from quart_app.together import Together
from quart_app.web import problems, uses

View = TypeVar("View", bound=Callable[..., Any])

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
PROBES = frozenset({"ops.healthz", "ops.readyz"})
_UNASKED = PROBES | {"static"}  # they have to answer whatever is away
_FILES = frozenset({"static", "swagger.static"})
_FORM_SECONDS = 12 * 3600
#: What a page may load, unless it says otherwise itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class User:
    """Who speaks: a token, by itself or through a browser's session."""

    token_id: str
    name: str
    role: Role
    by_session: bool
    #: Patterns of the tasks it may use; none means all.
    tasks: Sequence[str]

    def may(self, role: Role) -> bool:
        return _RANK[self.role] >= _RANK[role]


def init_app(app: Quart) -> None:
    app.extensions["tokens"] = Together(app, _find_tokens, app.config["REQUEST_PATIENCE"])
    app.before_request(_admit)
    app.after_request(_harden)
    app.jinja_env.globals["csrf_token"] = csrf_token


def needs(role: Role) -> Callable[[View], View]:
    """The least role for a view; else a viewer may read and an operator may do the rest."""

    def mark(view: View) -> View:
        view.needed_role = role  # type: ignore[attr-defined]
        return view

    return mark


def may_make(task: str) -> bool:
    """Whether who asks may make, cancel and retry jobs of the task."""
    return bool(g.user.may(Role.OPERATOR)) and actors.current().may_use(task)


def public(view: View) -> View:
    """For a view that asks nobody for a token; who sends one is known in `g.user` all the same."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def sign_in(token: Token) -> None:
    """A new session for this browser; nothing of an earlier one is kept."""
    session.clear()
    session["token"] = token.id
    session["csrf"] = _nonce()  # now: pages that are loaded at once would each have their own


def csrf_token() -> str:
    """Signed proof, for a form, that this session asked for it; a token by itself needs none."""
    if g.user and not g.user.by_session:
        return ""
    if "csrf" not in session:
        session["csrf"] = _nonce()
    return str(_signer().dumps(session["csrf"]))


async def socket_user() -> User | None:
    """Who opened the current socket: its token, or a session if the page is our own."""
    return await _identify(socket)


def is_same_origin(headers: Any, host: str) -> bool:
    """Browsers send Origin with every form and socket; programs with a token need not."""
    origin = headers.get("Origin")
    if origin is None:
        return headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def is_known_host(host: str) -> bool:
    name = re.sub(r":\d+$", "", host).lower()
    hosts = [host.lower() for host in current_app.config["ALLOWED_HOSTS"]]
    return "*" in hosts or name in hosts


async def _admit() -> Any:
    g.user = None
    if request.endpoint is None:
        return None  # unknown path or wrong method: there is nothing to guard
    if request.endpoint not in PROBES and not is_known_host(request.host):
        raise BadRequest(f"Host: {request.host!r} is not one of ALLOWED_HOSTS")
    if request.endpoint in _UNASKED:
        return None
    g.user = await _identify(request)
    is_public = getattr(current_app.view_functions[request.endpoint], "is_public", False)
    if g.user is None and not is_public:
        return await _ask_who()
    _remember(g.user)
    if request.method not in SAFE and (g.user is None or g.user.by_session):
        await _require_own_form()
    if not is_public and not g.user.may(_needed_role()):
        raise Forbidden(f"Your role is {g.user.role}; this needs {_needed_role()}.")
    return None


def _remember(user: User | None) -> None:
    """For whatever is done in this request: who does it, and by which way."""
    via = "console" if problems.is_page() else "api"
    actors.carry(Actor(user.name, via, user.tasks) if user else Actor("", via))
    if user is not None:
        baggage.add(user=user.name)


def _needed_role() -> Role:
    if request.method == "OPTIONS":
        return Role.VIEWER  # it only says which methods there are
    view = current_app.view_functions[request.endpoint or ""]
    default = Role.VIEWER if request.method in SAFE else Role.OPERATOR
    role: Role = getattr(view, "needed_role", default)
    return role


async def _ask_who() -> Response:
    if problems.is_page():
        wanted = request.full_path.rstrip("?") if request.method in SAFE else None
        page = await render_template("sign_in.html", next=wanted)
        return Response(page, 401)
    wrong = _secret(request)
    detail = "This token is not valid (any more)." if wrong else "Send Authorization: Bearer TOKEN."
    return await problems.answer(
        401, "Unauthorized", detail, headers={"WWW-Authenticate": "Bearer"}
    )


async def _identify(connection: Any) -> User | None:
    if secret := _secret(connection):
        tokens_sent: Together[str, Token | None] = current_app.extensions["tokens"]
        token = await tokens_sent.ask(secret)
        return _user(token, by_session=False)
    if token_id := session.get("token"):
        token = await db.read(tokens.by_id, token_id)
        return _user(token, by_session=True)
    return None


def _secret(connection: Any) -> str:
    """The token that was sent, or nothing."""
    scheme, _, secret = connection.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


async def _find_tokens(sent: Sequence[str]) -> Sequence[Token | None]:
    return await db.read(tokens.identify_all, sent)


def _user(token: Token | None, by_session: bool) -> User | None:
    if token is None:
        return None
    uses.note(token.id)
    return User(token.id, token.name, token.role, by_session, token.tasks or ())


async def _require_own_form() -> None:
    """Raises Forbidden unless the browser and a signed token both say the form is ours."""
    if not problems.is_page():
        raise Forbidden("A browser's session may only read the API: send a token.")
    if request.mimetype != "application/x-www-form-urlencoded":
        raise UnsupportedMediaType("Send this form as application/x-www-form-urlencoded.")
    sent = (await request.form).get("csrf_token", "")
    try:
        nonce = _signer().loads(sent, max_age=_FORM_SECONDS)
    except BadSignature:
        nonce = ""
    own = secrets.compare_digest(str(nonce), session.get("csrf", ""))
    is_ours = is_same_origin(request.headers, request.host)
    if nonce and own and is_ours:
        return
    if is_ours and current_app.config["SESSION_COOKIE_NAME"] not in request.cookies:
        raise Forbidden("The browser kept no cookie: off this machine the console needs HTTPS.")
    raise Forbidden("This form is not from this console, or too old: load its page again.")


def _nonce() -> str:
    return secrets.token_urlsafe(16)


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt="csrf")


async def _harden(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if request.endpoint not in _FILES:
        response.headers["Cache-Control"] = "no-store"
    return response
