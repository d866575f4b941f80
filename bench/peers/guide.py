"""The study guide's application: Flask and Celery in one file, `delay()` in the view."""

import os

from celery import Celery
from flask import Flask

app = Flask(__name__)

celery_app = Celery(
    app.name, broker=os.environ["PEER_REDIS"], backend=os.environ.get("PEER_RESULTS")
)
celery_app.conf.update(app.config)


@celery_app.task(bind=True)
def async_send_sms(self):
    return "success"


@app.route("/task", methods=["POST"])
def task():
    result = async_send_sms.delay()
    return result.id


@app.get("/healthz")
def healthz():
    return "ok"
