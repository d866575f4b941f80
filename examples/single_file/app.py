"""The study guide's one-file application, in Quart.

    celery -A app.celery_app worker --loglevel=info      (on Windows with -P solo)
    python app.py
    curl -X POST http://127.0.0.1:5000/task

It needs a Redis; CELERY_BROKER_URL and CELERY_RESULT_BACKEND say where.
"""

import os
import sys
import time
from pathlib import Path

from quart import Quart

# The extension could be installed; here it lies two folders up.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from quart_app.celeryext import QuartCelery

app = Quart(__name__)
for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
    app.config[name] = os.environ.get(name, "redis://localhost:6379/0")

celery_app = QuartCelery(app).celery


@celery_app.task(bind=True)
def async_send_sms(self: object) -> str:
    time.sleep(10)
    return "success"


@app.post("/task")
async def task() -> str:
    result = await async_send_sms.adelay()  # as delay(), which would stop every other request
    return str(result.id)


if __name__ == "__main__":
    app.run()
