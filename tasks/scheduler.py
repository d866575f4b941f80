"""What beat starts by the clock."""

from typing import Any

from quart_app import db, jobs, sms
from quart_app.errors import Invalid
from tasks.base import task

#: Messages of one transaction, which others wait for, and of one run: the next one goes on.
_BATCH = 100
_MOST = 5_000


@task(bind=True)
def send_sms(self: Any) -> dict[str, Any]:
    """Gives each message whose time has come a job of its own, in one transaction with it."""
    started: list[str] = []
    refused: dict[str, str] = {}
    while len(started) + len(refused) < _MOST:
        taken, wrong = _start_batch()
        started += taken
        refused |= wrong
        if len(taken) + len(wrong) < _BATCH:
            break
    for message_id, why in refused.items():
        self.log(f"Message {message_id} cannot be sent: {why}", "warning")
    due = len(started) + len(refused)
    self.log(f"{due} due: {len(started)} given to a job each, {len(refused)} refused.")
    return {"due": due, "started": len(started), "refused": len(refused), "jobs": started}


def _start_batch() -> tuple[list[str], dict[str, str]]:
    """The jobs it made, and by message why there could be none."""
    started: list[str] = []
    refused: dict[str, str] = {}
    with db.session() as session:
        for message in sms.due(session, _BATCH):
            words = {"to": message.to, "text": message.text}
            try:
                job = jobs.submit(session, "tasks.background.async_send_sms", kwargs=words)
            except Invalid as problem:
                refused[message.id] = str(problem)
                sms.refuse(session, message.id, str(problem))
            else:
                message.job_id = job.id
                started.append(job.id)
    return started, refused
