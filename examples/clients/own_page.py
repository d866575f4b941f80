"""A page of your own site that has something done and shows it happening, live, in any browser.

export TOKEN=qm_…
python own_page.py     serves it at http://127.0.0.1:8001/

Quartermaster takes a browser's sockets from its own pages alone, and a token belongs into no
browser. So the site asks in its own name, and tells each visitor what it hears of their jobs.
"""

import argparse
import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from over_http import connect, follow, submit, token, told
from quart import Quart, Response, abort, request, send_file, session

NOBODY = "+12015550123"  # a number of fiction
PATIENCE = 10

app = Quart(__name__)
app.secret_key = os.environ.get("SECRET_KEY") or secrets.token_hex()
app.config |= {"SESSION_COOKIE_SAMESITE": "Lax", "URL": "http://127.0.0.1:8000"}


@app.while_serving
async def connection() -> AsyncIterator[None]:
    async with connect(app.config["URL"], token()) as app.quartermaster:
        yield


@app.get("/")
async def index() -> Response:
    return await send_file(Path(__file__).with_suffix(".html"))


@app.post("/greetings")
async def greet() -> Any:
    """Has the visitor's greeting sent; the answer is the job's id."""
    kwargs = {"to": NOBODY, "text": (await request.form)["text"]}
    async with asyncio.timeout(PATIENCE):
        job = {"task": "tasks.background.async_send_sms", "kwargs": kwargs}
        job_id = await submit(app.quartermaster, job)
    session["jobs"] = [*session.get("jobs", []), job_id][-20:]
    return {"id": job_id}, 202


@app.get("/greetings/<job_id>/events")
async def events(job_id: str) -> Response:
    """The events of a job of this visitor, from where the browser says that it left off."""
    if job_id not in session.get("jobs", []):
        abort(404)
    seen = request.headers.get("Last-Event-ID", "0")
    after = int(seen) if seen.isdecimal() else 0

    async def stream() -> AsyncIterator[str]:
        async for event in follow(app.quartermaster, job_id, after):
            seq = f"id: {event['seq']}\n" if "seq" in event else ""
            yield f"{seq}data: {json.dumps(event)}\n\n"
        yield "event: end\ndata:\n\n"

    response = Response(stream(), content_type="text/event-stream")
    response.timeout = None  # else Quart ends it after a minute
    return response


@app.errorhandler(httpx.HTTPStatusError)
async def refused(error: httpx.HTTPStatusError) -> Any:
    """What the visitor wrote may be wrong; that we were not let in is not their business."""
    if error.response.status_code == 422:
        return {"detail": told(error)}, 422
    return {"detail": "This does not work just now."}, 502


@app.errorhandler(TimeoutError)
async def away(_: TimeoutError) -> Any:
    return {"detail": "This does not work just now: try again soon."}, 503


if __name__ == "__main__":
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("--port", type=int, default=8001, help="where to serve it")
    parser.add_argument("--url", default=app.config["URL"], help="where Quartermaster answers")
    words = parser.parse_args()
    app.config["URL"] = words.url
    token()  # where there is none it ends here, before it serves
    app.run(port=words.port)
