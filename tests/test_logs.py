"""What a task says by ordinary logging: lines of its job, on every pool."""

from pathlib import Path

import pytest

from tests import real
from tests.conftest import Place
from tests.ledger import Ledger

POOLS = {
    "prefork": ("--concurrency=1",),
    "threads": ("-P", "threads"),
    "solo": ("-P", "solo"),
}
SAID = [("info", "sold 3 of Größe 5"), ("warning", "low on stock"), ("error", "cannot sell")]


def lines(ledger: Ledger, job_id: str, seconds: float = 20) -> list[tuple[str, str]]:
    """Each level and first line, once the job has ended."""
    assert ledger.ended(job_id, seconds).error is None
    said = ledger.events(job_id, "log")
    return [(line["level"], line["message"].partition("\n")[0]) for line in said]


@pytest.mark.parametrize("pool", POOLS)
def test_ordinary_logging_is_kept_with_the_job_on_every_pool(
    ledger: Ledger, clean: Place, tmp_path: Path, pool: str
) -> None:
    with real.worker(clean.env, tmp_path / "log", "-Q", "mine", *POOLS[pool]) as log:
        talk, later = (ledger.submit(name, queue="mine") for name in ("talk", "talk_later"))
        assert lines(ledger, talk) == [("info", "by itself"), *SAID]
        assert lines(ledger, later) == SAID
    assert "low on stock" in log.read_text()
    assert ledger.events(talk, "log")[-1]["message"].endswith("\nValueError: no price")


def test_a_worker_that_is_to_say_little_keeps_the_lines_all_the_same(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    argv = real.python("celery", "-A", "tasks", "worker", "--loglevel=error", "-Q", "mine")
    with real.process(argv, clean.env, tmp_path / "log"):
        assert lines(ledger, ledger.submit("talk", queue="mine"), 40)[1:] == SAID
    assert "low on stock" not in (tmp_path / "log").read_text()
    assert "cannot sell" in (tmp_path / "log").read_text()


def test_only_so_many_lines_of_ordinary_logging_are_kept(ledger: Ledger, worker: Path) -> None:
    said = lines(ledger, ledger.submit("babble", 10_500))
    assert len(said) == 10_000
    assert said[0] == ("info", "line 0")
    assert said[-1] == ("warning", "Only the first 10000 lines of this job are kept.")


def test_the_level_from_which_lines_are_kept_is_a_setting(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    env = clean.env | {"JOB_LOG_LEVEL": "WARNING"}
    with real.worker(env, tmp_path / "log", "-Q", "mine", "-P", "solo"):
        assert lines(ledger, ledger.submit("talk", queue="mine")) == [
            ("info", "by itself"),
            *SAID[1:],
        ]
