"""What beat starts by the clock."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from quart import current_app

from quart_app import db, jobs, retention, sms
from quart_app.errors import Invalid
from quart_app.models import JobState
from tasks.base import task

#: Messages of one transaction, which others wait for, and of one run: the next one goes on.
_BATCH = 100
_MOST = 5_000
#: Rows of one transaction, and seconds for one kind of them: the next run goes on.
_PRUNED_AT_ONCE = 500
_PRUNE_SECONDS = 120.0


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


@task(bind=True)
def prune(self: Any) -> dict[str, int]:
    """Deletes what is not to be kept any longer: keys, jobs, messages, audit, nodes.

    What fails for one kind keeps no other from being pruned; the job fails after all of them.
    """
    ages, days = retention.ages(current_app.config), current_app.config["KEEP_AUDIT"]
    of_jobs = {
        state.value: partial(retention.prune, state=state, age=ages[state]) for state in ages
    }
    verbs: dict[str, Callable[..., int]] = {
        "repeats": retention.prune_repeats,  # first, since what is left of them goes with a job
        **of_jobs,
        "messages": partial(retention.prune_messages, age=ages[JobState.FAILED]),
        "audit": partial(retention.prune_audit, days=days),
        "nodes": lambda session, most: retention.prune_nodes(session),
    }
    gone, failed = {}, []
    for kind, verb in verbs.items():
        try:
            gone[kind] = _until_none_is_left(self, verb)
        except Exception as error:
            self.log(f"{kind}: {type(error).__name__}: {error}", "error")
            failed.append(kind)
    if failed:
        raise RuntimeError(f"could not prune: {', '.join(failed)}; the log tells why")
    return gone


def _until_none_is_left(task: Any, verb: Callable[..., int]) -> int:
    gone, deadline = 0, time.monotonic() + _PRUNE_SECONDS
    while not task.cancelled and time.monotonic() < deadline:
        with db.session() as session:
            batch = verb(session, most=_PRUNED_AT_ONCE)
        gone += batch
        if not batch:
            break
    return gone


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
