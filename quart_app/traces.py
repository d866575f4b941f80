"""Traces of OpenTelemetry, from a request to the attempts of its jobs, where that is installed.

The standard OTEL_* variables say whether and where to; a tracer provider that is set before
`create_app` is used as it is.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from quart import Quart, request

from quart_app import baggage
from quart_app.baggage import Baggage
from quart_app.models import Job

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    trace = None

_NEEDED = "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
#: Of no interest, too long for a span, or with a secret in the path.
_UNTRACED = "/healthz,/readyz,/metrics,/static/,/ws(/|$),/sign-in"

logger = logging.getLogger(__name__)


@dataclass
class Attempt:
    outcome: str = "succeeded"


def init_app(app: Quart) -> None:
    """Exports spans if the settings say where to, and has one for each request."""
    wanted = app.config["OTEL_TRACES_EXPORTER"] or "none"
    try:
        if wanted != "none" and not _is_set_up():
            _export(wanted, app.config["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
        if _is_set_up():
            _trace_requests(app)
    except ImportError as missing:
        logger.warning("No traces: %s. pip install %s", missing, _NEEDED)


def flush() -> None:
    """In a process that ends without what Python does at exit."""
    if _is_set_up() and (force := getattr(trace.get_tracer_provider(), "force_flush", None)):
        force()


@contextmanager
def submitting() -> Iterator[Callable[[Sequence[Job]], None]]:
    """A span around a submission, which is told the jobs that came of it."""
    if not _is_set_up():
        yield lambda _: None
        return
    known = {"messaging.operation.type": "send", "messaging.operation.name": "submit"}
    with _span("submit", trace.SpanKind.PRODUCER, baggage.current().traceparent, known) as span:
        yield lambda jobs: span.set_attributes(_about(jobs))


@contextmanager
def attempt(job: Job, outcomes: Mapping[type[BaseException], str]) -> Iterator[Attempt]:
    """A span around an attempt, below the one that its job was submitted in.

    `outcomes` names what exceptions stand for; all others are failures.
    """
    told = Attempt()
    if not _is_set_up():
        yield told
        return
    known = {"messaging.operation.type": "process", "messaging.operation.name": "process"}
    known |= _about([job]) | {"quartermaster.attempt": job.attempt}
    above = baggage.unpack(job.context).traceparent
    with _span(f"process {job.task}", trace.SpanKind.CONSUMER, above, known) as span:
        try:
            yield told
        except BaseException as error:
            told.outcome = outcomes.get(type(error), "failed")
            _note(span, told.outcome, error)
            raise
        finally:
            span.set_attribute("quartermaster.outcome", told.outcome)


def onward(given: Baggage) -> Baggage:
    """What travels from here on: its traceparent is that of the span which runs here, if any."""
    carrier: dict[str, str] = {}
    if _is_set_up():
        TraceContextTextMapPropagator().inject(carrier)
    return replace(given, traceparent=carrier.get("traceparent", given.traceparent))


def _is_set_up() -> bool:
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


def _export(wanted: str, protocol: str) -> None:
    # Only here: what is installed and not asked for costs nothing.
    sdk, export = import_module("opentelemetry.sdk.trace"), "opentelemetry.sdk.trace.export"
    provider = sdk.TracerProvider()
    for name in wanted.split(","):
        exporter = _exporter(_PROTOCOLS.get(protocol, name) if name == "otlp" else name)
        provider.add_span_processor(import_module(export).BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(provider)


def _exporter(name: str) -> Any:
    known = entry_points(group="opentelemetry_traces_exporter")
    if name in _PROTOCOLS.values() and name not in known.names:
        raise ImportError(f"there is no exporter {name}")
    if name not in known.names:
        expected = ", ".join(sorted({"none", *known.names}))
        sys.exit(f"OTEL_TRACES_EXPORTER = {name!r}: expected one of {expected}")
    return known[name].load()


def _trace_requests(app: Quart) -> None:
    try:
        middleware: Any = import_module("opentelemetry.instrumentation.asgi")
    except ImportError:
        return  # the spans of jobs are below what the caller sends
    app.asgi_app = middleware.OpenTelemetryMiddleware(  # type: ignore[method-assign]
        app.asgi_app, excluded_urls=_UNTRACED, exclude_spans=["receive", "send"],
        default_span_details=lambda scope: (scope["method"], {}),
    )  # fmt: skip
    app.before_request(_name_by_route)


async def _name_by_route() -> None:
    """Ids in the names of spans would make each its own kind."""
    if request.url_rule:
        route = re.sub(r"<\w+:", "<", request.url_rule.rule)  # without its converters
        trace.get_current_span().update_name(f"{request.method} {route}")
        trace.get_current_span().set_attribute("http.route", route)


def _span(name: str, kind: Any, above: str | None, known: Mapping[str, Any]) -> Any:
    """One that is current while it lasts, below the current one or else `above`."""
    tracer = trace.get_tracer("quartermaster")
    context = None
    if not trace.get_current_span().get_span_context().is_valid:
        context = TraceContextTextMapPropagator().extract({"traceparent": above or ""})
    attributes = {"messaging.system": "celery", **known}
    return tracer.start_as_current_span(
        name, context, kind, attributes, record_exception=kind is trace.SpanKind.PRODUCER,
        set_status_on_exception=kind is trace.SpanKind.PRODUCER,
    )  # fmt: skip


def _about(jobs: Sequence[Job]) -> dict[str, Any]:
    if len(jobs) != 1:
        return {"messaging.batch.message_count": len(jobs)}
    (job,) = jobs
    ids = {"messaging.destination.name": job.queue, "messaging.message.id": job.id}
    return ids | {"quartermaster.task": job.task}


def _note(span: Any, outcome: str, error: BaseException) -> None:
    if outcome not in ("failed", "retrying"):
        return
    cause = error.__cause__ or error if outcome == "retrying" else error
    span.record_exception(cause)
    span.set_attribute("error.type", type(cause).__name__)
    span.set_status(trace.StatusCode.ERROR, str(cause))
