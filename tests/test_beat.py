"""Real beats: each due time makes one job, however many beats there are and however they end."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete

from quart_app import nodes, schedules
from quart_app.models import Job, JobState, Node
from tests import real
from tests.book import ADD
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until

EVERY_SECOND = json.dumps({"often": {"task": "tests.sample_tasks.give_up", "schedule": 1}})
BEAT = real.python("celery", "-A", "tasks", "beat", "--loglevel=info")


@contextmanager
def beat(place: Place, log: Path, entries: str = EVERY_SECOND) -> Iterator[subprocess.Popen[bytes]]:
    env = place.env | {"CELERY_BEAT_SCHEDULE": entries}
    with real.process(BEAT, env, log) as process:
        until(lambda: "beat: Starting..." in log.read_text())
        yield process


def due_times(ledger: Ledger) -> list[float]:
    times = [job.eta.timestamp() for job in ledger.jobs() if job.schedule_id and job.eta]
    return sorted(times)


def make(ledger: Ledger, name: str, missed: str = "once") -> str:
    """The id of a new schedule that is due each second."""
    rule = {"args": [1], "interval": 1, "missed": missed}
    return ledger.within(lambda s: schedules.create(s, name, ADD, **rule).id)


def made_by(ledger: Ledger, schedule_id: str) -> list[Job]:
    return [job for job in ledger.jobs() if job.schedule_id == schedule_id]


def has_passed(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since it was asked for."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def assert_each_second_once(times: list[float]) -> None:
    assert [round(later - times[0]) for later in times] == list(range(len(times)))


def online(ledger: Ledger) -> list[Node]:
    return ledger.within(lambda s: nodes.online(s, "beat"))


def test_each_due_time_makes_one_job_though_two_beats_run(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    make(still, "all", missed="all")
    with beat(clean, tmp_path / "one", "{}"), beat(clean, tmp_path / "two", "{}"):
        until(lambda: len(online(still)) == 2)
        count = len(due_times(still))
        until(lambda: len(due_times(still)) >= count + 3)
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


def test_beat_sees_what_is_made_paused_and_resumed_meanwhile(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    with beat(clean, tmp_path / "log"):
        id_ = make(still, "mine", missed="all")
        until(lambda: made_by(still, id_))
        still.within(lambda s: schedules.pause(s, id_))
        count, others = len(made_by(still, id_)), len(due_times(still))
        until(lambda: len(due_times(still)) >= others + 3)
        assert len(made_by(still, id_)) == count
        resumed = still.within(lambda s: schedules.resume(s, id_)).next_at
        until(lambda: len(made_by(still, id_)) >= count + 2)
    etas = [job.eta for job in made_by(still, id_)[count:]]
    assert min(eta for eta in etas if eta) == resumed


def test_beat_goes_by_a_changed_rule(still: Ledger, clean: Place, tmp_path: Path) -> None:
    with beat(clean, tmp_path / "log", "{}"):
        id_ = make(still, "mine")
        still.within(lambda s: schedules.change(s, id_, interval=3600))
        count = len(due_times(still))
        still.within(lambda s: schedules.change(s, id_, interval=0.5, args=[7]))
        until(lambda: len(due_times(still)) >= count + 3)
    assert all(job.args == [7] for job in made_by(still, id_)[count:])


def test_every_due_time_has_its_job_though_beat_is_killed_again_and_again(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    make(still, "all", missed="all")
    for _ in range(3):
        count = len(due_times(still))
        with beat(clean, tmp_path / "log", "{}") as process:
            until(lambda: len(due_times(still)) > count + 1)  # noqa: B023
            process.send_signal(signal.SIGKILL)
        until(has_passed(2.5))
    assert_each_second_once(due_times(still))


def test_of_what_passed_while_no_beat_ran_once_makes_up_for_the_newest(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    make(still, "once")
    until(has_passed(4))
    with beat(clean, tmp_path / "log", "{}"):
        until(lambda: len(due_times(still)) >= 3)
    schedule = still.within(lambda s: schedules.named(s, "once"))
    times = due_times(still)
    assert times[0] - schedule.created_at.timestamp() > 3.5
    assert len(set(times)) == len(times)


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
        assert process.wait(20) == 0
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
