"""The ledger as a test sees it: submits jobs, looks at their rows and waits for their end."""

from collections.abc import Callable
from typing import Any, TypeVar

from quart import Quart
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from quart_app import db, events, jobs
from quart_app.celeryext import in_app_context
from quart_app.models import Job, JobState
from tests.real import until

T = TypeVar("T")
FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Ledger:
    def __init__(self, app: Quart) -> None:
        self.app = app

    def within(self, verb: Callable[[Session], T]) -> T:
        """Calls `verb(session)` in a transaction of its own and a context of the application."""

        def body() -> T:
            with db.session() as session:
                return verb(session)

        return in_app_context(self.app, body)

    def submit(self, task: str, *args: Any, **options: Any) -> str:
        """The id of a new job of a task of the samples, or of one whose whole name is given."""
        name = task if "." in task else f"tests.sample_tasks.{task}"
        return self.within(lambda s: jobs.submit(s, name, args=args, **options).id)

    def job(self, job_id: str) -> Job:
        return self.within(lambda s: jobs.get(s, job_id))

    def jobs(self) -> list[Job]:
        """All of them, oldest first."""
        return self.within(lambda s: list(s.scalars(select(Job).order_by(Job.id))))

    def change(self, job_id: str, **columns: Any) -> None:
        self.within(lambda s: s.execute(update(Job).where(Job.id == job_id).values(columns)))

    def change_all(self, **columns: Any) -> None:
        self.within(lambda s: s.execute(update(Job).values(columns)))

    def cancel(self, job_id: str) -> None:
        self.within(lambda s: jobs.cancel(s, job_id))

    def ended(self, job_id: str, seconds: float = 20) -> Job:
        until(lambda: self.job(job_id).state in FINAL, seconds)
        return self.job(job_id)

    def reached(self, job_id: str, state: JobState, seconds: float = 20) -> Job:
        until(lambda: self.job(job_id).state is state, seconds)
        return self.job(job_id)

    def events(self, job_id: str, type_: str) -> list[dict[str, Any]]:
        """The stored frames of one type, in order."""
        frames = self.within(lambda s: events.since(s, job_id))
        return [frame for frame in frames if frame["type"] == type_]
