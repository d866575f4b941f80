"""What beat asks for."""

from tasks import celery


@celery.task
def send_sms() -> str:
    return "success"
