"""What beat starts by the clock."""

from typing import Any

from quart_app import db, jobs, sms
from tasks.base import task


@task(bind=True)
def send_sms(self: Any) -> dict[str, Any]:
    """Gives each message whose time has come a job of its own, in one transaction with it."""
    with db.session() as session:
        messages = sms.due(session)
        for message in messages:
            job = jobs.submit(
                session,
                "tasks.background.async_send_sms",
                kwargs={"to": message.to, "text": message.text},
            )
            message.job_id = job.id
    self.log(f"{len(messages)} messages were due.")
    return {"due": len(messages), "jobs": [message.job_id for message in messages]}
