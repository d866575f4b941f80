"""What a task has written with its own success: there when it succeeded, and only then."""

from pathlib import Path

import pytest

from quart_app import attempts, jobs
from quart_app.celeryext import in_app_context
from quart_app.models import JobState
from tests.ledger import Ledger
from tests.real import until

PROMISE = "tests.sample_tasks.promise"


def made(ledger: Ledger) -> list[str]:
    """The jobs that promises came to."""
    return [job.id for job in ledger.jobs() if job.task == "tests.sample_tasks.add"]


@pytest.fixture
def going_on(ledger: Ledger, worker: Path, tmp_path: Path) -> tuple[str, Path]:
    """A job that has begun, and the file that keeps it going."""
    path = tmp_path / "go on"
    path.touch()
    job_id = ledger.submit("promise", str(path))
    ledger.reached(job_id, JobState.RUNNING)
    return job_id, path


def test_what_was_promised_is_written_with_the_success(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("promise"))
    (promised,) = made(ledger)
    assert (job.state, job.result) == (JobState.SUCCEEDED, "kept")
    assert ledger.ended(promised).result == 2


def test_nothing_is_written_before_the_end(ledger: Ledger, going_on: tuple[str, Path]) -> None:
    job_id, path = going_on
    assert made(ledger) == []
    path.unlink()
    ledger.ended(job_id)
    assert len(made(ledger)) == 1


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("and fails", "ValueError: and fails"),
        ("with a wrong argument", "Invalid: args.0: input should be a valid integer"),
        ("with a wrong statement", "OperationalError: "),
    ],
)
def test_an_attempt_that_fails_leaves_nothing(
    ledger: Ledger, worker: Path, how: str, error: str
) -> None:
    job = ledger.ended(ledger.submit("promise", kwargs={"how": how}))
    assert job.state is JobState.FAILED
    assert str(job.error).startswith(error)
    assert made(ledger) == []


def test_an_attempt_that_comes_too_late_leaves_nothing(
    ledger: Ledger, worker: Path, going_on: tuple[str, Path]
) -> None:
    job_id, path = going_on
    ledger.change(job_id, attempt=2)
    path.unlink()
    until(lambda: f"Job {job_id} ended or went to another attempt" in worker.read_text())
    assert made(ledger) == []
    ledger.within(lambda session: attempts.succeed(session, job_id, 2, "the other's"))


def test_an_attempt_that_is_cancelled_leaves_nothing(
    ledger: Ledger, going_on: tuple[str, Path]
) -> None:
    job_id, _ = going_on
    ledger.within(lambda session: jobs.cancel(session, job_id))
    assert ledger.ended(job_id).state is JobState.CANCELLED
    assert made(ledger) == []


def test_without_a_job_it_is_written_at_once(ledger: Ledger) -> None:
    promise = ledger.app.extensions["celery"].tasks[PROMISE]
    assert in_app_context(ledger.app, promise) == "kept"
    assert len(made(ledger)) == 1
