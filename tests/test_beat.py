"""Real beats: each due time makes one job, however many beats there are and however they end."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete

from quart_app import nodes
from quart_app.models import Job, JobState, Node
from tests import real
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until

EVERY_SECOND = json.dumps({"often": {"task": "tests.sample_tasks.give_up", "schedule": 1}})
BEAT = real.python("celery", "-A", "tasks", "beat", "--loglevel=info")


@contextmanager
def beat(place: Place, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    env = place.env | {"CELERY_BEAT_SCHEDULE": EVERY_SECOND}
    with real.process(BEAT, env, log) as process:
        until(lambda: "beat: Starting..." in log.read_text(), 30)
        yield process


def due_times(ledger: Ledger) -> list[float]:
    times = [job.eta.timestamp() for job in ledger.jobs() if job.schedule_id and job.eta]
    return sorted(times)


def assert_each_second_once(times: list[float]) -> None:
    assert [round(later - times[0]) for later in times] == list(range(len(times)))


def online(ledger: Ledger) -> list[Node]:
    return ledger.within(lambda s: nodes.online(s, "beat"))


def test_each_due_time_makes_one_job_though_two_beats_run(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    with beat(clean, tmp_path / "one"), beat(clean, tmp_path / "two"):
        until(lambda: len(online(still)) == 2, 60)
        seen = len(due_times(still))
        until(lambda: len(due_times(still)) >= seen + 4)
    assert_each_second_once(due_times(still))
    assert not list(real.ROOT.glob("celerybeat-schedule*"))


def test_a_beat_that_is_killed_and_started_again_skips_and_repeats_nothing(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    with beat(clean, tmp_path / "one") as process:
        until(lambda: len(due_times(still)) >= 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with beat(clean, tmp_path / "two"):
        count = len(due_times(still))
        until(lambda: len(due_times(still)) >= count + 2)
    times = due_times(still)
    assert len({round(time) for time in times}) == len(times)


def test_beat_relays_where_no_web_runs(
    still: Ledger, clean: Place, tmp_path: Path, worker: Path
) -> None:
    late = still.submit("add", 1, delay=0.5)
    still.app.extensions["publisher"].most_doorbells = 0
    with beat(clean, tmp_path / "log"):
        assert still.ended(late).result == 2
        job = until(lambda: [job for job in still.jobs() if job.schedule_id])[0]
        assert still.ended(job.id).state is JobState.FAILED


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_beat_ends_soon_when_asked_to_and_says_so(
    still: Ledger, clean: Place, tmp_path: Path, how: signal.Signals
) -> None:
    with beat(clean, tmp_path / "log") as process:
        until(lambda: online(still))
        process.send_signal(how)
        assert process.wait(5) == 0
    assert not online(still)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_schedule_of_the_settings_is_kept_in_step(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    with beat(clean, tmp_path / "one"):
        until(lambda: due_times(still))
    still.within(lambda s: s.execute(delete(Job)))
    with real.process(BEAT, clean.env | {"CELERY_BEAT_SCHEDULE": "{}"}, tmp_path / "two"):
        until(lambda: online(still))
        began = still.submit("add", 1, delay=1.5, queue="nowhere")
        still.reached(began, JobState.QUEUED)
    assert due_times(still) == []
