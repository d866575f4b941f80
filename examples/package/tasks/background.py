"""What the web asks for."""

from quart import current_app

from tasks import celery


@celery.task
def async_send_sms() -> str:
    return f"success of {current_app.name}"
