"""What beat starts by the clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from quart import current_app
from sqlalchemy.orm import Session

from quart_app import baggage, db, jobs, retention, sms
from quart_app.errors import Full, Invalid, NotFound, Permanent
from quart_app.models import Job, JobState, Message
from tasks.base import task

#: Messages of one transaction, which others wait for, and of one run: the next one goes on.
_BATCH = 100
_MOST = 5_000
#: Rows of one transaction, and seconds for one kind of them: the next run goes on.
_PRUNED_AT_ONCE = 500
_PRUNE_SECONDS = 120.0


@dataclass
class _Batch:
    """What became of messages that are due."""

    #: The jobs that were made.
    started: list[str] = field(default_factory=list)
    #: By message why there could be no job.
    refused: dict[str, str] = field(default_factory=dict)
    #: Why the rest has to wait, where the queue takes no more.
    full: str = ""

    @property
    def count(self) -> int:
        return len(self.started) + len(self.refused)


@task(bind=True)
def send_sms(self: Any) -> dict[str, Any]:
    """Gives each message whose time has come a job of its own, in one transaction with it.

    What a full queue has no room for is left to the next run.
    """
    found = _Batch()
    while found.count < _MOST and not found.full:
        batch = _start_batch()
        found.started += batch.started
        found.refused |= batch.refused
        found.full = batch.full
        if batch.count < _BATCH:
            break
    for message_id, why in found.refused.items():
        self.log(f"Message {message_id} cannot be sent: {why}", "warning")
    if found.full:
        self.log(f"The others wait for the next run: {found.full}", "warning")
    given = f"{len(found.started)} given to a job each, {len(found.refused)} refused"
    self.log(f"{found.count} due: {given}.")
    return {
        "due": found.count, "started": len(found.started), "refused": len(found.refused),
        "jobs": found.started,
    }  # fmt: skip


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


def _start_batch() -> _Batch:
    batch = _Batch()
    with db.session() as session:
        for message in sms.due(session, _BATCH):
            try:
                with session.begin_nested():
                    message.job_id = _submit(session, message).id
            except Invalid as problem:
                batch.refused[message.id] = str(problem)
                sms.refuse(session, message.id, str(problem))
            except Full as problem:
                batch.full = str(problem)
                break
            else:
                batch.started.append(message.job_id)
    return batch


def _submit(session: Session, message: Message) -> Job:
    """The job of a message, as of whoever asked for that."""
    words = {"to": message.to, "text": message.text}
    try:
        return jobs.submit(session, sms.TASK, kwargs=words, baggage=baggage.unpack(message.context))
    except NotFound:
        module = sms.TASK.rpartition(".")[0]
        raise Permanent(
            f"No SMS that is due can be sent: this worker does not know the task {sms.TASK}."
            f" Name {module} in CELERY_IMPORTS, for it and the web."
        ) from None
