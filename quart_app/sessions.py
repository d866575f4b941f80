"""Sessions: signed in the browser, or kept in Redis while it holds nothing but a random id."""

import hashlib
import json
import logging
import secrets
from typing import Any

import redis.asyncio
from quart import Quart, Response
from quart.sessions import (
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from quart.wrappers import BaseRequestWebsocket
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from werkzeug.wrappers import Response as WerkzeugResponse

from quart_app.errors import Problem

_KEY = "quartermaster:session:"
_PATIENCE = 1.0
#: Seconds that Redis keeps the session of a browser that has not signed in: it is for a form alone.
_STRANGER = 1800

logger = logging.getLogger(__name__)


class SessionsAway(Problem):
    """Whoever needs a session has to wait; whoever sends a token does not."""

    status = 503
    title = "Service Unavailable"


def init_app(app: Quart) -> None:
    if app.config["SESSION_BACKEND"] == "redis":
        interface = RedisSessions(app.config["REDIS_URL"])
        app.session_interface = interface  # type: ignore[assignment]  # any interface will do
        app.after_serving(interface.close)
    else:
        app.session_interface = CookieSessions()


class CookieSessions(SecureCookieSessionInterface):
    """Quart's own, at no cost for a request that brings no cookie."""

    async def open_session(
        self, app: Quart, request: BaseRequestWebsocket
    ) -> SecureCookieSession | None:
        if self.get_cookie_name(app) not in request.cookies:
            return self.session_class()
        return await super().open_session(app, request)


class RedisSession(dict[str, Any], SessionMixin):
    """Emptied, it goes on under a new id: that is how signing in or out rotates it."""

    def __init__(self, id_: str | None = None, values: dict[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.id: str | None = id_
        self.former_id: str | None = None
        self._kept = json.dumps(values or {}, sort_keys=True)

    def clear(self) -> None:
        super().clear()
        self.former_id = self.former_id or self.id
        self.id = None

    @property
    def is_changed(self) -> bool:
        return json.dumps(self, sort_keys=True) != self._kept


class AwaySession(RedisSession):
    """Stands in while Redis is away; the first use says so, unless it asks what there is."""

    def _refuse(self, *_: Any) -> Any:
        logger.warning("A session was not read: Redis is away.")
        raise SessionsAway("Sessions are not available; nothing was changed. Try again soon.")

    __getitem__ = __setitem__ = get = clear = _refuse


class RedisSessions(SessionInterface):
    """Keeps each session under the digest of its id, so that a look into Redis signs nobody in."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.from_url(
            url,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> RedisSession:
        id_ = request.cookies.get(self.get_cookie_name(app))
        if not id_:
            return RedisSession()
        try:
            found = await self._redis.get(_key(id_))
        except (RedisError, OSError):
            return AwaySession()
        # An id that we do not know is not taken over from the browser.
        return RedisSession(id_, json.loads(found)) if found else RedisSession()

    async def save_session(
        self, app: Quart, session: SessionMixin, response: Response | WerkzeugResponse | None
    ) -> None:
        if not isinstance(session, RedisSession) or isinstance(session, AwaySession):
            return
        if response is None or not session.is_changed:
            return
        try:
            await self._save(app, session, response)
        except (RedisError, OSError) as error:
            logger.warning("A session was not kept: %s", type(error).__name__)
            problem = SessionsAway(
                "Sessions are not available; yours was not kept. Try again soon."
            )
            await _become(response, problem, app)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _save(
        self, app: Quart, session: RedisSession, response: Response | WerkzeugResponse
    ) -> None:
        name, path = self.get_cookie_name(app), self.get_cookie_path(app)
        over = session.former_id or (None if session else session.id)
        if over:
            await self._redis.delete(_key(over))
        if not session:
            response.delete_cookie(name, path=path)
            return
        is_known = session.id is not None
        session.id = session.id or secrets.token_urlsafe(32)
        signed_in = int(app.permanent_session_lifetime.total_seconds())
        seconds = signed_in if "token" in session else _STRANGER
        text = json.dumps(session)
        if not await self._redis.set(_key(session.id), text, ex=seconds, xx=is_known):
            return  # it was signed out while this request was under way
        # Without an age, as the cookies of the other backend: it goes when the browser is closed.
        response.set_cookie(
            name, session.id, path=path,
            httponly=True,
            secure=self.get_cookie_secure(app),
            samesite=self.get_cookie_samesite(app) or "Lax",
        )  # fmt: skip


async def _become(response: Response | WerkzeugResponse, problem: Problem, app: Quart) -> None:
    """Makes it the answer to a view that raised the problem: so late Quart asks no handler."""
    told = await app.make_response(await app.handle_user_exception(problem))
    response.status_code, response.response = told.status_code, told.response
    response.headers.pop("Location", None)
    response.headers.update(told.headers)


def _key(id_: str) -> str:
    return _KEY + hashlib.sha256(id_.encode()).hexdigest()
