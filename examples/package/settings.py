"""Every key that the study guide sets; where Redis is may be said in the environment."""

import os
from datetime import timedelta

from celery.schedules import crontab

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://:root123@localhost:6379/0")
CELERY_RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND", CELERY_BROKER_URL)
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_WORKER_CONCURRENCY = 20
CELERY_TASK_TIME_LIMIT = 3600  # seconds
CELERY_TIMEZONE = "Asia/Shanghai"
CELERY_ENABLE_UTC = True
CELERY_WORKER_LOG_COLOR = True
CELERY_IMPORTS = ("tasks.scheduler", "tasks.background")
CELERY_BEAT_SCHEDULE = {
    "each minute": {
        "task": "tasks.scheduler.send_sms",
        "schedule": crontab(minute="*/1"),
        "args": (),
    },
    "every ten seconds": {
        "task": "tasks.scheduler.send_sms",
        "schedule": timedelta(seconds=10),
        "args": (),
    },
}
