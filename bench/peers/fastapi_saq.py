"""FastAPI with SAQ: its queue connects when the application starts."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from saq import Queue

queue = Queue.from_url(os.environ["PEER_REDIS"])


async def send_sms(ctx):
    return "success"


settings = {"queue": queue, "functions": [send_sms]}


@asynccontextmanager
async def lifespan(app):
    await queue.connect()
    yield
    await queue.disconnect()


app = FastAPI(lifespan=lifespan)


@app.post("/task", status_code=202)
async def task():
    job = await queue.enqueue("send_sms")
    return {"id": job.id}


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}
