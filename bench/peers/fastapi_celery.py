"""FastAPI with Celery: a `def` view, which FastAPI runs in a thread since `delay()` blocks."""

import os

from celery import Celery
from fastapi import FastAPI

app = FastAPI()
celery_app = Celery("fastapi_celery", broker=os.environ["PEER_REDIS"])


@celery_app.task(ignore_result=True)
def async_send_sms():
    return "success"


@app.post("/task", status_code=202)
def task():
    result = async_send_sms.delay()
    return {"id": result.id}


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}
