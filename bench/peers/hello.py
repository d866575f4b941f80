"""Quart with nothing behind it: what a server and the framework take by themselves."""

from quart import Quart

app = Quart(__name__)


@app.post("/task")
async def task():
    return {"hello": "world"}, 202


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}
