"""FastAPI with arq: one pool, made when the application starts."""

import os
from contextlib import asynccontextmanager

from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI


async def send_sms(ctx):
    return "success"


@asynccontextmanager
async def lifespan(app):
    app.state.arq = await create_pool(RedisSettings.from_dsn(os.environ["PEER_REDIS"]))
    yield
    await app.state.arq.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/task", status_code=202)
async def task():
    job = await app.state.arq.enqueue_job("send_sms")
    return {"id": job.job_id}


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}
