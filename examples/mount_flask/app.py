"""An existing Flask application beside a Quart one, so that views can move over one by one.

hypercorn app:app
curl http://127.0.0.1:8000/old/hello     answered by Flask
curl http://127.0.0.1:8000/hello         answered by Quart
"""

from typing import Any

from flask import Flask
from hypercorn.middleware import AsyncioWSGIMiddleware
from quart import Quart

flask_app = Flask("old")
quart_app = Quart("new")


@flask_app.get("/hello")
def old_hello() -> str:
    return "Hello from Flask"


@quart_app.get("/hello")
async def new_hello() -> str:
    return "Hello from Quart"


PREFIX = "/old"
wsgi = AsyncioWSGIMiddleware(flask_app)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Everything but HTTP under the prefix is Quart's: its sockets and its lifespan, too."""
    if scope["type"] == "http" and scope["path"].startswith(f"{PREFIX}/"):
        await wsgi({**scope, "root_path": scope["root_path"] + PREFIX}, receive, send)
    else:
        await quart_app(scope, receive, send)
