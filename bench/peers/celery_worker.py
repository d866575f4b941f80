"""Celery by itself: its task keeps its result in `PEER_RESULTS`, or nothing."""

import os

from celery import Celery

app = Celery(
    "celery_worker", broker=os.environ["PEER_REDIS"], backend=os.environ.get("PEER_RESULTS")
)
app.conf.task_ignore_result = "PEER_RESULTS" not in os.environ


@app.task(name="nothing")
def nothing():
    pass
