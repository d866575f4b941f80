"""FastAPI with taskiq on the list broker: the fastest of its Redis brokers, without acks."""

import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(os.environ["PEER_REDIS"])


@broker.task
async def send_sms() -> str:
    return "success"


@asynccontextmanager
async def lifespan(app):
    await broker.startup()
    yield
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)


@app.post("/task", status_code=202)
async def task():
    sent = await send_sms.kiq()
    return {"id": sent.task_id}


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}
