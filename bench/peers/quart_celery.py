"""The guide's view as it is first written in Quart: `delay()` on the event loop."""

import os

from celery import Celery
from quart import Quart

app = Quart(__name__)
celery_app = Celery("quart_celery", broker=os.environ["PEER_REDIS"])


@celery_app.task(ignore_result=True)
def async_send_sms():
    return "success"


@app.post("/task")
async def task():
    result = async_send_sms.delay()
    return {"id": result.id}, 202


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}
