"""What a task may rely on: its arguments, its retries, its result, and whom it obeys."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel
from quart import Quart
from redis import Redis

from quart_app import figures, jobs
from quart_app.doorbell import Foundry, Ring
from quart_app.errors import Invalid
from quart_app.models import JobState
from settings import broker_url
from tasks.parameters import bind, model_of
from tests import real
from tests.conftest import Place
from tests.ledger import Ledger
from tests.real import until

ADD = "tests.sample_tasks.add"


@pytest.fixture
def client(clean: Place) -> Iterator[Celery]:
    """Some other Celery client, which knows the broker and nothing else."""
    with Celery("stranger", broker=broker_url(clean.redis_url), set_as_current=False) as stranger:
        yield stranger


def forge(place: Place, app: Quart, ring: Ring, body: Any = None) -> None:
    """Pushes a message with that id and task, and other arguments than the row has."""
    key, text = Foundry(app.extensions["celery"]).cast(ring)
    message = json.loads(text)
    message["body"] = json.dumps(body or [[40, 2], {}, {}])
    message["properties"]["body_encoding"] = "utf-8"
    with Redis.from_url(place.redis_url) as redis:
        redis.lpush(key, json.dumps(message))


def queued_far_away(ledger: Ledger, *args: Any) -> str:
    """A queued job whose own doorbell goes where nobody listens."""
    return ledger.submit("add", *args, queue="nowhere")


def test_a_job_is_with_the_broker_before_it_starts_however_quick_the_worker(
    ledger: Ledger, worker: Path
) -> None:
    ended = [ledger.ended(ledger.submit("add", number)) for number in range(30)]
    times = [[job.accepted_at, job.published_at, job.started_at, job.finished_at] for job in ended]
    assert times == [sorted(each) for each in times]  # type: ignore[type-var]


def test_a_forged_message_does_not_change_the_arguments(
    ledger: Ledger, clean: Place, worker: Path
) -> None:
    job_id = queued_far_away(ledger, 1)
    forge(clean, ledger.app, Ring(job_id, ADD, "celery", 0))
    assert ledger.ended(job_id).result == 2


def test_a_message_with_the_name_of_another_task_runs_nothing(
    ledger: Ledger, clean: Place, worker: Path
) -> None:
    job_id = queued_far_away(ledger, 1)
    forge(clean, ledger.app, Ring(job_id, "tests.sample_tasks.fail", "celery", 0))
    last = ledger.submit("add", 1)
    assert ledger.ended(last).result == 2
    assert ledger.job(job_id).attempt == 0


def test_a_doorbell_that_comes_many_times_is_heard_once(
    ledger: Ledger, worker: Path, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job_id = ledger.submit("touch", str(marks), queue="nowhere")
    ring = Ring(job_id, "tests.sample_tasks.touch", "celery", 0)
    assert ledger.app.extensions["publisher"].push([ring] * 20)
    assert ledger.ended(ledger.submit("add", 1)).result == 2
    assert ledger.ended(job_id).attempt == 1
    assert len(marks.read_text().splitlines()) == 1


def test_celery_call_makes_a_job(ledger: Ledger, clean: Place, worker: Path) -> None:
    words = real.python("celery", "-A", "tasks", "call", ADD, "-a", "[1]")
    with real.process(words, clean.env, clean.var / "call.log") as call:
        assert call.wait(20) == 0
    (job,) = until(ledger.jobs)
    assert (ledger.ended(job.id).result, job.args, job.queue) == (2, [1], "celery")


def test_another_celery_client_may_call_a_task(
    ledger: Ledger, client: Celery, worker: Path
) -> None:
    job_id = client.send_task(ADD, [1], {"right": 2}).id
    until(ledger.jobs)
    assert ledger.ended(job_id).result == 3
    assert [event["state"] for event in ledger.events(job_id, "state")] == [
        "queued", "running", "succeeded",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task_id", "args", "why"),
    [
        ("bad-arguments", ["x"], "args.0: input should be a valid integer"),
        ("too-many", [1, 2, 3], "args: tests.sample_tasks.add takes 2 at most"),
        ("not-finite", [1, float("inf")], "args.1"),
        ("a' OR 1=1", [1], "its id is not a UUID"),
        ("é" * 500, [1], "its id is not a UUID"),
    ],
)
def test_a_direct_call_that_makes_no_sense_is_refused_and_the_worker_goes_on(
    ledger: Ledger, client: Celery, worker: Path, *, task_id: str, args: list[Any], why: str
) -> None:
    is_uuid = "-" in task_id and " " not in task_id
    client.send_task(ADD, args, task_id=str(uuid.uuid4()) if is_uuid else task_id)
    until(lambda: why in worker.read_text())
    job_id = ledger.submit("add", 1)
    assert ledger.ended(job_id).result == 2
    assert [job.id for job in ledger.jobs()] == [job_id]


def test_arguments_reach_the_body_in_their_types(ledger: Ledger, worker: Path) -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC).isoformat()
    job_id = ledger.submit("typed", when, kwargs={"point": {"x": 1}, "near": 2})
    assert ledger.ended(job_id).result == "datetime Point int"


def draw(shape: "Shape", others: "list[Shape]") -> "Nothing":  # type: ignore[name-defined]  # noqa: F821
    """What it takes is defined below it, and what it gives nowhere."""


class Shape(BaseModel):
    within: "Shape | None" = None


def test_the_types_of_parameters_may_be_defined_below_the_task() -> None:
    shape = {"within": {"within": None}}
    bound = bind(model_of("draw", draw), [shape], {"others": [{}]})
    assert bound.stored() == ([shape], {"others": [{}]})


@pytest.mark.parametrize(
    ("name", "kwargs", "told"),
    [
        (ADD, {"rihgt": 2}, "kwargs.rihgt: unknown; expected one of left, right"),
        (ADD, {"left": "x", "rihgt": 2}, "kwargs.rihgt: unknown; expected one of left, right"),
        (ADD, {"right": 2}, "kwargs.left: field required"),
        ("tasks.scheduler.prune", {"days": 2}, "kwargs.days: unknown; the task takes none"),
    ],
)
def test_an_argument_that_is_unknown_is_told_before_one_that_is_missing(
    ledger: Ledger, name: str, kwargs: dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid) as wrong:
        ledger.submit(name, kwargs=kwargs)
    assert str(wrong.value) == told


def test_parameters_may_be_called_anything(ledger: Ledger, worker: Path) -> None:
    names = {"copy": 2, "_x": 3, "model_config": 4}
    job_id = ledger.submit("oddly_named", "a", 1, kwargs=names)
    assert ledger.ended(job_id).result == ["a", 1, 2, 3, 4, 0]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("nan", "ValueError: Out of range float"),
        ("infinity", "ValueError: Out of range float"),
        ("half", "UnicodeEncodeError"),
        ("too much", "ValueError: its result takes 5000002 bytes"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_job(
    ledger: Ledger, worker: Path, what: str, error: str
) -> None:
    job = ledger.ended(ledger.submit("give", what))
    assert job.state is JobState.FAILED
    assert error in str(job.error)


def test_a_result_that_is_no_json_fails_the_job(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("unprintable"))
    assert (job.state, job.result) == (JobState.FAILED, None)
    assert "ValueError: its result is no JSON: Unable to serialize" in str(job.error)


def test_a_result_of_a_megabyte_is_kept(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("give", "megabyte"))
    assert (job.state, job.result) == (JobState.SUCCEEDED, "€" * 350_000)


def test_a_failing_job_is_tried_again_with_growing_pauses(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("stumble", 2))
    assert (job.state, job.attempt, job.result, job.error) == (
        JobState.SUCCEEDED, 3, "walked", None,
    )  # fmt: skip
    waits = [event["retry_in"] for event in ledger.events(job.id, "state") if "retry_in" in event]
    assert waits == [pytest.approx(0.1, rel=0.3), pytest.approx(0.2, rel=0.3)]


def test_a_failing_job_is_given_up_after_its_last_attempt(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("stumble", 9))
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert job.error == "RuntimeError: stumbled 3"


def test_a_permanent_failure_is_not_tried_again(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("give_up"))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error == "Permanent: there is no use"
    until(lambda: f"[{job.id}] raised expected: Permanent" in worker.read_text())


def test_the_error_is_the_jobs_and_the_traceback_that_of_its_event(
    ledger: Ledger, worker: Path
) -> None:
    reason = f"for want of {uuid.uuid4()}"
    job = ledger.ended(ledger.submit("fail", reason))
    assert job.error == f"ValueError: {reason}"
    first, place, line, *_, end = ledger.events(job.id, "state")[-1]["traceback"].splitlines()
    assert (first, end) == ("Traceback (most recent call last):", job.error)
    assert "sample_tasks.py" in place
    assert place.endswith(", in fail")
    assert line.strip() == "raise ValueError(reason)"
    assert until(lambda: f"ValueError: {reason}" in worker.read_text())
    assert "Traceback" in worker.read_text()


@pytest.mark.parametrize("name", ["chain_errors", "chain_errors_async"])
def test_each_failed_attempt_has_a_traceback_from_the_tasks_first_line_on(
    ledger: Ledger, worker: Path, name: str
) -> None:
    job = ledger.ended(ledger.submit(name))
    told = [event["traceback"] for event in ledger.events(job.id, "state") if "error" in event]
    assert len(told) == 2
    for text in told:
        assert text.count(f"in {name}") == 2
        assert "KeyError: 'THE FIRST'" in text
        assert "was the direct cause of the following exception" in text
        assert text.endswith("RuntimeError: the second")
        assert "celery" not in text


def test_of_an_endless_recursion_the_end_of_the_traceback_is_kept(
    ledger: Ledger, worker: Path
) -> None:
    job = ledger.ended(ledger.submit("fall"))
    told = ledger.events(job.id, "state")[-1]["traceback"]
    assert len(told) < 8192
    assert told.splitlines()[-1].startswith("RecursionError: maximum recursion depth exceeded")


def test_an_error_that_cannot_be_told_ends_its_job_all_the_same(
    ledger: Ledger, worker: Path
) -> None:
    job = ledger.ended(ledger.submit("mumble"))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error == "Unspeakable: its text cannot be made"


def test_an_error_of_any_text_is_kept(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("complain", "你好 👋"))
    assert str(job.error).startswith("RuntimeError: 你好 👋\ufffd?xxx")
    assert len(str(job.error)) == 8192


@pytest.mark.parametrize(
    ("name", "error"),
    [("panic", "Panic: at the disco"), ("panic_together", "BaseExceptionGroup: unhandled errors")],
)
def test_what_is_no_exception_fails_its_job_at_once(
    ledger: Ledger, worker: Path, name: str, error: str
) -> None:
    job = ledger.ended(ledger.submit(name))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert error in str(job.error)


def test_a_group_of_tasks_that_is_cancelled_ends_as_cancelled(ledger: Ledger, worker: Path) -> None:
    job_id = ledger.submit("wait_together", 60)
    ledger.reached(job_id, JobState.RUNNING)
    ledger.within(lambda s: jobs.cancel(s, job_id))
    job = ledger.ended(job_id, 30)
    assert (job.state, job.attempt, job.losses) == (JobState.CANCELLED, 1, 0)


@pytest.mark.parametrize("how", ["delta", "word", "far", "nan"])
def test_a_pause_of_any_kind_leads_to_another_attempt(
    ledger: Ledger, worker: Path, how: str
) -> None:
    job_id = ledger.submit("put_off", how)
    assert until(lambda: ledger.job(job_id).state in {JobState.RETRYING, JobState.FAILED})
    wait = next(e["retry_in"] for e in ledger.events(job_id, "state") if "retry_in" in e)
    assert wait == pytest.approx({"delta": 0.01, "far": 316_224_000, "nan": 0}.get(how, 2), abs=0.5)


def test_progress_and_lines_are_kept(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("count", 3))
    assert job.progress == {"current": 3, "total": 3, "message": "step 3"}
    lines = [event["message"] for event in ledger.events(job.id, "log")]
    assert lines == ["line 1", "line 2", "line 3"]


def test_a_task_that_stops_when_asked_to_ends_cancelled(
    ledger: Ledger, worker: Path, tmp_path: Path
) -> None:
    job_id = ledger.submit("obey", str(tmp_path / "begun"))
    until((tmp_path / "begun").exists)
    ledger.change(job_id, cancel_requested=True)
    job = ledger.ended(job_id)
    assert (job.state, job.result) == (JobState.CANCELLED, None)


@pytest.mark.parametrize("by", ["delay", "apply_async"])
def test_a_task_makes_jobs_by_celerys_own_words(ledger: Ledger, worker: Path, by: str) -> None:
    first = ledger.ended(ledger.submit("pass_on", 5, by))
    assert ledger.ended(str(first.result)).result == 6


def test_a_thread_makes_jobs_by_celerys_own_words(ledger: Ledger, worker: Path) -> None:
    add = ledger.app.extensions["celery"].tasks[ADD]
    job_id = add.apply_async((1,), {"right": 1}, countdown=30, queue="celery", priority=3).id
    job = ledger.job(job_id)
    assert (job.state, job.priority, job.args) == (JobState.SCHEDULED, 3, [1])
    assert ledger.ended(add.delay(1).id).result == 2


async def test_delay_refuses_to_block_an_event_loop(clean: Place) -> None:
    app = clean.app()
    with pytest.raises(RuntimeError, match=r"await db\.run\(jobs\.submit, …\)"):
        app.extensions["celery"].tasks[ADD].delay(1)


def test_delay_refuses_to_block_the_loop_of_an_async_task(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("pass_on_at_once"))
    assert "await asyncio.to_thread(task.delay, …)" in str(job.error)
    job = ledger.ended(ledger.submit("pass_on_in_a_thread"))
    assert ledger.ended(str(job.result)).result == 2


def test_options_that_only_a_message_carries_need_direct_calls(clean: Place) -> None:
    add = clean.app(ALLOW_DIRECT_CALLS=False).extensions["celery"].tasks[ADD]
    with pytest.raises(ValueError, match="expires, link: needs ALLOW_DIRECT_CALLS"):
        add.apply_async((1,), link=None, expires=3)


def test_celerys_retry_ends_in_our_own_columns(ledger: Ledger, clean: Place, worker: Path) -> None:
    job = ledger.ended(ledger.submit("ask_again", 2))
    assert (job.state, job.attempt, job.result) == (JobState.SUCCEEDED, 3, "after 2")
    retried = [event for event in ledger.events(job.id, "state") if event["state"] == "retrying"]
    assert [event["error"] for event in retried] == [
        "RuntimeError: not at 0", "RuntimeError: not at 1",
    ]  # fmt: skip
    assert [event["retry_in"] for event in retried] == [0.05, 0.05]


def test_celerys_retry_ends_with_the_last_attempt(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("ask_again", 9))
    assert (job.state, job.attempt, job.error) == (JobState.FAILED, 3, "RuntimeError: not at 2")


def test_a_retry_far_ahead_waits_in_the_row(ledger: Ledger, clean: Place, worker: Path) -> None:
    job = ledger.reached(ledger.submit("ask_again", 1, 3600), JobState.RETRYING)
    assert 3500 < (job.available_at - datetime.now(UTC)).total_seconds() <= 3600
    with Redis.from_url(clean.redis_url) as redis:
        assert redis.llen("celery") == 0
        until(lambda: redis.hlen("unacked") == 0)  # the main process hears later that it began


@pytest.mark.parametrize(("kind", "times"), [("ConnectionError", 3), ("ValueError", 1)])
def test_autoretry_for_names_what_is_tried_again(
    ledger: Ledger, worker: Path, tmp_path: Path, kind: str, times: int
) -> None:
    job = ledger.ended(ledger.submit("reconnect", str(tmp_path / "tries"), kind))
    assert (job.state, job.attempt, job.error) == (JobState.FAILED, times, f"{kind}: away")
    assert len((tmp_path / "tries").read_text().splitlines()) == times


def test_autoretry_for_holds_for_async_tasks_too(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("reconnect_later"))
    assert (job.attempt, job.error) == (2, "OSError: away")


def test_a_task_that_is_cancelled_from_within_fails(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("give_itself_up"))
    assert job.error == "RuntimeError: an async part of the task was cancelled"


def test_a_task_may_name_its_queue(ledger: Ledger) -> None:
    assert ledger.job(ledger.submit("on_the_slow_queue")).queue == "slow"


def test_a_call_from_outside_is_refused_where_direct_calls_are_off(
    ledger: Ledger, clean: Place, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    canvas = {"task": {"task": "tests.sample_tasks.touch", "args": [], "kwargs": {}, "options": {}}}
    env = clean.env | {"ALLOW_DIRECT_CALLS": "false"}
    with strict_worker(env, tmp_path / "log") as log:
        queue = "strict"
        ring = Ring(str(uuid.uuid4()), "tests.sample_tasks.touch", queue, 0)
        forge(clean, ledger.app, ring, [[str(marks)], {}, {}])
        ring = Ring(str(uuid.uuid4()), "celery.map", queue, 0)
        forge(clean, ledger.app, ring, [[], canvas | {"it": [str(marks)]}, {}])
        job_id = ledger.submit("add", 1, queue=queue)
        assert ledger.ended(job_id).result == 2
        until(lambda: "ALLOW_DIRECT_CALLS is off" in log.read_text())
        until(lambda: 1 in ledger.within(figures.now).messages_refused.values())
    assert not marks.exists()
    assert [job.id for job in ledger.jobs()] == [job_id]


def strict_worker(env: dict[str, str], log: Path) -> Any:
    return real.worker(env, log, "-P", "solo", "-Q", "strict")


@pytest.mark.parametrize(
    ("task", "args"), [("touch", ["/dev/null", 60]), ("sleep_on", [60]), ("spin", [60])]
)
def test_a_body_that_never_looks_is_ended_when_its_job_is_cancelled(
    ledger: Ledger, worker: Path, task: str, args: list[Any]
) -> None:
    job_id = ledger.submit(task, *args)
    ledger.reached(job_id, JobState.RUNNING)
    ledger.within(lambda s: jobs.cancel(s, job_id))
    assert ledger.ended(job_id, 30).state is JobState.CANCELLED
    assert "Asked to stop" in ledger.events(job_id, "log")[0]["message"]
    assert ledger.ended(ledger.submit("add", 1)).result == 2


def test_a_busy_body_is_ended_in_a_thread_too(clean: Place, ledger: Ledger, tmp_path: Path) -> None:
    with real.worker(clean.env | {"JOB_LEASE": "1"}, tmp_path / "log", "-P", "threads"):
        job_id = ledger.submit("spin", 60)
        ledger.reached(job_id, JobState.RUNNING)
        ledger.within(lambda s: jobs.cancel(s, job_id))
        assert ledger.ended(job_id, 30).state is JobState.CANCELLED
        assert ledger.ended(ledger.submit("add", 1)).result == 2


def test_progress_that_makes_no_sense_harms_nothing(ledger: Ledger, worker: Path) -> None:
    job = ledger.ended(ledger.submit("report_oddly"))
    assert (job.state, job.result) == (JobState.SUCCEEDED, "done")
    assert job.progress == {"current": None, "total": None, "message": "how far?"}


def test_an_async_body_that_waits_in_a_thread_is_cancelled(
    still: Ledger, clean: Place, tmp_path: Path
) -> None:
    with real.worker(clean.env, tmp_path / "log", "-P", "threads"):
        job_id = still.submit("sleep_on", 60)
        still.reached(job_id, JobState.RUNNING)
        still.within(lambda s: jobs.cancel(s, job_id))
        job = still.ended(job_id, 30)
    assert (job.state, job.attempt, job.losses) == (JobState.CANCELLED, 1, 0)
