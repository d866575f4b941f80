"""One trace from a request to its task, in this process and through real ones."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quart_app import baggage, traces
from quart_app.baggage import Baggage
from quart_app.errors import NotFound
from quart_app.models import Job, Role
from tests import real
from tests.book import ADD
from tests.conftest import Place, make_token
from tests.ledger import Ledger
from tests.test_cli import quart
from tests.web.conftest import serving

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
JOB = {"task": ADD, "args": [1]}
STUMBLE = "tests.sample_tasks.stumble"


class Again(Exception):
    """As Celery's Retry."""


@pytest.fixture(autouse=True)
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What has been traced; a process has one provider for all its life, so it is lent."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.fixture
def job(still: Ledger) -> Job:
    return still.job(still.submit("add", 1, baggage=Baggage(**SENT)))


def finished(spans: InMemorySpanExporter) -> Mapping[str, Any]:
    return {span.name: span for span in spans.get_finished_spans()}


def place_of(span: Any) -> str:
    """As a traceparent has it."""
    its = span.context
    return f"00-{its.trace_id:032x}-{its.span_id:016x}-{its.trace_flags:02x}"


async def kept(client: Any, app: Any, **headers: str) -> Job:
    answer = await client.post("/api/jobs", json=JOB, headers=headers)
    return Ledger(app).job((await answer.get_json())["id"])


async def test_a_job_travels_with_the_span_it_was_submitted_in(
    app: Any, client: Any, spans: InMemorySpanExporter
) -> None:
    job, known = await kept(client, app), finished(spans)
    request, submit = known["POST /api/jobs"], known["submit"]
    assert job.context["traceparent"] == place_of(submit)
    assert submit.parent.span_id == request.context.span_id
    assert request.attributes["http.route"] == "/api/jobs"
    assert submit.attributes == {
        "messaging.system": "celery",
        "messaging.operation.type": "send",
        "messaging.operation.name": "submit",
        "messaging.destination.name": "celery",
        "messaging.message.id": job.id,
        "quartermaster.task": ADD,
    }


async def test_a_trace_that_the_caller_began_goes_on(
    app: Any, client: Any, spans: InMemorySpanExporter
) -> None:
    job, known = await kept(client, app, **SENT, tracestate="a=1"), finished(spans)
    assert f"{known['POST /api/jobs'].parent.span_id:016x}" == CALLER
    assert job.context["traceparent"] == place_of(known["submit"])
    assert f"{known['submit'].context.trace_id:032x}" == TRACE


async def test_a_batch_is_one_span(client: Any, spans: InMemorySpanExporter) -> None:
    await client.post("/api/jobs/batch", json={"jobs": [JOB, JOB]})
    assert finished(spans)["submit"].attributes["messaging.batch.message_count"] == 2


async def test_what_is_of_no_interest_or_secret_is_not_traced(
    client: Any, spans: InMemorySpanExporter
) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/static/app.css", "/sign-in/of-one-time"):
        await client.get(path)
    async with client.websocket("/ws") as socket:
        await socket.send('{"ping": true}')
        await socket.receive()
    assert spans.get_finished_spans() == ()


async def test_ids_are_not_in_the_names_of_requests(
    client: Any, spans: InMemorySpanExporter
) -> None:
    await client.get("/api/jobs/01a2031e-4b08-7054-b25f-b43bb27ba951")
    await client.get("/nowhere")
    assert [*finished(spans)] == ["GET /api/jobs/<job_id>", "GET"]


def test_without_a_request_it_begins_with_the_submission(
    still: Ledger, spans: InMemorySpanExporter
) -> None:
    job = still.job(still.submit("add", 1))
    submit = finished(spans)["submit"]
    assert submit.parent is None
    assert job.context == {"traceparent": place_of(submit)}


def test_what_cannot_be_submitted_is_an_error_of_its_span(
    still: Ledger, spans: InMemorySpanExporter
) -> None:
    with pytest.raises(NotFound):
        still.submit("no.such")
    submit = finished(spans)["submit"]
    assert (submit.status.status_code, len(submit.events)) == (trace.StatusCode.ERROR, 1)


def test_an_attempt_is_below_the_span_that_its_job_came_with(
    job: Job, spans: InMemorySpanExporter
) -> None:
    with traces.attempt(job, {}):
        inner = traces.onward(Baggage(request_id="r"))
    process = finished(spans)[f"process {ADD}"]
    assert (f"{process.parent.span_id:016x}", process.kind.name) == (CALLER, "CONSUMER")
    assert inner == Baggage(request_id="r", traceparent=place_of(process))
    assert process.attributes == {
        "messaging.system": "celery",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "celery",
        "messaging.message.id": job.id,
        "quartermaster.task": ADD,
        "quartermaster.attempt": 0,
        "quartermaster.outcome": "succeeded",
    }


@pytest.mark.parametrize(
    ("error", "outcome", "type_"),
    [
        (ValueError("no luck"), "failed", "ValueError"),
        (Again(), "retrying", "OSError"),
        (KeyboardInterrupt(), "cancelled", None),
    ],
)
def test_how_an_attempt_ends_is_told(
    job: Job, spans: InMemorySpanExporter, error: BaseException, outcome: str, type_: str | None
) -> None:
    ends = {Again: "retrying", KeyboardInterrupt: "cancelled"}
    with pytest.raises(type(error)), traces.attempt(job, ends):
        raise error from OSError("what lay below")
    process = finished(spans)[f"process {ADD}"]
    assert process.attributes["quartermaster.outcome"] == outcome
    assert process.attributes.get("error.type") == type_
    assert [event.name for event in process.events] == ["exception"] * bool(type_)


class Collector:
    """Takes what processes export by OTLP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def collecting() -> Iterator[tuple[str, Collector]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", collector
        server.shutdown()
        thread.join()


def test_one_trace_goes_from_the_request_through_web_and_worker(
    clean: Place, tmp_path: Path
) -> None:
    token = make_token(clean.database, Role.OPERATOR)
    with collecting() as (address, collector):
        env: dict[str, Any] = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with (
            serving(clean, tmp_path / "web.log", **env) as web,
            real.worker(clean.env | env, tmp_path / "worker.log"),
        ):
            job = {"task": STUMBLE, "kwargs": {"times": 1}}
            headers = {"Authorization": f"Bearer {token}", **SENT}
            httpx.post(f"{web.address}/api/jobs", json=job, headers=headers).raise_for_status()
            real.until(lambda: len(collector.named(f"process {STUMBLE}")) == 2)
        (request,), (submit,) = collector.named("POST /api/jobs"), collector.named("submit")
    attempts = collector.named(f"process {STUMBLE}")
    attempts.sort(key=lambda span: span.start_time_unix_nano)  # two processes told of them
    assert {span.trace_id.hex() for span in (request, submit, *attempts)} == {TRACE}
    assert request.parent_span_id.hex() == CALLER
    assert submit.parent_span_id == request.span_id
    assert {span.parent_span_id for span in attempts} == {submit.span_id}
    outcomes = [told(span, "quartermaster.outcome") for span in attempts]
    assert outcomes == ["retrying", "succeeded"]
    assert [told(span, "error.type") for span in attempts] == ["RuntimeError", ""]


def told(span: Any, name: str) -> str:
    return "".join(each.value.string_value for each in span.attributes if each.key == name)


def test_an_exporter_that_there_is_not_ends_the_start_with_one_line(tmp_path: Path) -> None:
    env = {"VAR_DIR": str(tmp_path), "OTEL_TRACES_EXPORTER": "smoke"}
    code, out, err = quart(env, "migrate")
    assert (code, out) == (1, "")
    assert err == "OTEL_TRACES_EXPORTER = 'smoke': expected one of console, none, otlp_proto_http\n"


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
import asgi
print(asgi.app.name)
"""
UNASKED = """
import asgi, sys
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.instrumentation")
print([name for name in sys.modules if name.startswith(ours)])
"""


def test_without_its_packages_everything_works_and_says_what_is_missing(tmp_path: Path) -> None:
    env = {"VAR_DIR": str(tmp_path), "OTEL_TRACES_EXPORTER": "otlp"}
    done = real.script(WITHOUT, env=env)
    assert done.stdout == "quart_app\n"
    assert "pip install opentelemetry-sdk" in done.stderr


def test_what_is_installed_and_not_asked_for_is_not_even_loaded(tmp_path: Path) -> None:
    assert real.script(UNASKED, env={"VAR_DIR": str(tmp_path)}).stdout == "[]\n"


def test_nothing_is_traced_unless_it_is_set_up(
    still: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert still.job(still.submit("add", 1)).context == {}
    assert baggage.current() == traces.onward(Baggage())
