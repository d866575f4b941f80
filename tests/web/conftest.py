"""A real web process for the tests that need one, and a client that speaks to it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from quart import Quart

from quart_app.models import Role
from tests import real
from tests.conftest import Caller, Place, make_token, speaking
from tests.web.following import Hand, Served


@contextmanager
def serving(
    place: Place, log: Path, *, port: int = 0, by: str = "serve", **env: str
) -> Iterator[Served]:
    """A web process, started with `quart serve`, `hypercorn asgi:app` or `uvicorn asgi:app`."""
    port = port or real.free_port()
    bind = f"127.0.0.1:{port}"
    start = {
        "serve": ("quart", "--app", "asgi", "serve", "--bind", bind),
        "hypercorn": ("hypercorn", "asgi:app", "--bind", bind),
        "uvicorn": ("uvicorn", "asgi:app", "--port", str(port)),
    }
    argv = real.python(*start[by])
    with real.process(argv, place.env | env, log) as process:
        address = f"http://{bind}"
        real.until(lambda: process.poll() is not None or answers(address))
        assert process.poll() is None, log.read_text()
        yield Served(address, process.pid, log, process)


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def webs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Place], Served]]:
    """The web process of a place, started when first asked for."""
    started: dict[str, Served] = {}
    with ExitStack() as stack:

        def web(place: Place) -> Served:
            if place.redis_url not in started:
                log = tmp_path_factory.mktemp("web") / "web.log"
                started[place.redis_url] = stack.enter_context(serving(place, log))
            return started[place.redis_url]

        yield web


@pytest.fixture
def served(webs: Callable[[Place], Served], clean: Place) -> Served:
    return webs(clean)


@pytest.fixture
def secret(clean: Place) -> str:
    """The token of an operator."""
    return make_token(clean.database, Role.OPERATOR)


@pytest.fixture
def admin_token(app: Quart) -> str:
    return make_token(app.extensions["db"], Role.ADMIN)


@pytest.fixture
def admin(app: Quart, admin_token: str) -> Caller:
    return speaking(app, admin_token)


@pytest.fixture
async def http(served: Served, secret: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=served.address, headers=headers, timeout=20) as client:
        yield client


@pytest.fixture
async def hand(clean: Place) -> AsyncIterator[Hand]:
    app = clean.app()
    yield Hand(app)
    app.extensions["publisher"].close()
    await app.extensions["db"].close()
