"""SMS: numbers, segments, providers against a real HTTP endpoint, and the rows of messages."""

import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from apprise.plugins.twilio import NotifyTwilio
from pydantic import TypeAdapter, ValidationError
from quart import Quart
from sqlalchemy import select
from sqlalchemy.orm import Session

from quart_app import audit, baggage, db, jobs, sms
from quart_app.baggage import Baggage
from quart_app.celeryext import in_app_context
from quart_app.errors import Conflict, NotFound, Permanent
from quart_app.models import Base, Message, MessageState
from quart_app.sms.gateway import Gateway
from tests.book import Book, at_once
from tests.real import until

# Apprise imports it before Python 3.13.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

TO = "+8613800138000"
TEXT = "您好, 王女士 👩🏽‍🚀 – 10% €"
WAITING, SENDING, SENT = MessageState.WAITING, MessageState.SENDING, MessageState.SENT
FAILED, UNKNOWN = MessageState.FAILED, MessageState.UNKNOWN


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        endpoint: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        endpoint.received.append((self.path, dict(self.headers), body))
        endpoint.behaviour(self)

    def log_message(self, *args: Any) -> None:
        pass


class Endpoint(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.behaviour: Callable[[Answer], None] = answers(200)
        self.released = threading.Event()
        self.address = f"127.0.0.1:{self.server_port}"


def answers(status: int, **headers: str) -> Callable[[Answer], None]:
    def behave(request: Answer) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name, value)
        request.end_headers()

    return behave


def hangs(request: Answer) -> None:
    endpoint: Any = request.server
    endpoint.released.wait(10)


def resets(request: Answer) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    database = db.Database(f"sqlite:///{tmp_path}/messages.sqlite3")
    Base.metadata.create_all(database.engine)
    with database.session() as session:
        yield session
    database.engine.dispose()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+8613800138000", TO),
        ("138 0013 8000", TO),
        ("0086 138-0013-8000", TO),
        ("＋８６（１３８）００１３８０００", TO),
        ("\u202d+86\xa0138\u20110013\u20118000\u202c", TO),
        ("+1 (201) 555-0123", "+12015550123"),
        ("+290 12345", "+29012345"),
        ("+49 170 123456789012", "+49170123456789012"),
        ("+39 06 12345678", "+390612345678"),
    ],
)
def test_a_number_is_read_however_it_is_written(text: str, number: str) -> None:
    assert sms.parse_number(text, "CN") == number


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "+", "110", "+86", "+1201555", "hello", "1-800-FLOWERS", "+8613800138000 x5",
        "+86138#5", "+8613800138000;isub=1", "+8613800138000,+8613800138001", "+999 123456789",
        "+86138001380001234567", "+8613800138000\0", "+8613800138000\n", "+86\x1b13800138000",
        "+8613800138000\ud800", "+" + "8" * 1_000_000, "tel:+8613800138000",
    ],
)  # fmt: skip
def test_what_cannot_be_a_number_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a phone number such as \+8613800138000$"):
        sms.parse_number(text, "CN")


async def test_a_number_without_country_code_is_of_the_applications_region() -> None:
    app = Quart(__name__)
    app.config["SMS_DEFAULT_REGION"] = "DE"
    async with app.app_context():
        assert TypeAdapter(sms.Number).validate_python("0170 1234567") == "+491701234567"


def test_outside_an_application_a_number_needs_its_country_code() -> None:
    number = TypeAdapter(sms.Number)
    assert number.validate_python("+86 138 0013 8000") == TO
    with pytest.raises(ValidationError, match="expected a phone number such as"):
        number.validate_python("13800138000")


def test_numbers_and_texts_describe_themselves_in_json_schema() -> None:
    number, text = TypeAdapter(sms.Number).json_schema(), TypeAdapter(sms.Text).json_schema()
    assert number["type"] == text["type"] == "string"
    assert (number["examples"], number["maxLength"]) == ([TO], 40)
    assert (text["minLength"], text["maxLength"]) == (1, 1600)
    assert number["description"]
    assert text["description"]


@pytest.mark.parametrize("text", ["a", TEXT, "字" * 1600, " \n.", "👋" * 1600])
def test_a_text_may_be_anything_of_up_to_1600_characters(text: str) -> None:
    assert TypeAdapter(sms.Text).validate_python(text) == text


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000", "a" * 1601, "a\0b", "a\ud800", 5, None])
def test_a_text_that_is_blank_too_long_or_no_text_is_refused(text: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(sms.Text).validate_python(text)


@pytest.mark.parametrize(
    ("text", "encoding", "units", "count", "left"),
    [
        ("", "GSM-7", 0, 0, 160),
        ("a", "GSM-7", 1, 1, 159),
        ("é\n\r@ΔÇ_'", "GSM-7", 8, 1, 152),
        ("a" * 160, "GSM-7", 160, 1, 0),
        ("a" * 161, "GSM-7", 161, 2, 145),
        ("a" * 306, "GSM-7", 306, 2, 0),
        ("a" * 307, "GSM-7", 307, 3, 152),
        ("€\f^{}\\[~]|", "GSM-7", 20, 1, 140),
        ("€" * 80, "GSM-7", 160, 1, 0),
        ("a" * 159 + "€", "GSM-7", 161, 2, 145),
        ("a" * 152 + "€" + "a" * 152, "GSM-7", 306, 3, 152),
        ("€" * 153, "GSM-7", 306, 3, 151),
        ("`", "UCS-2", 1, 1, 69),
        ("ç", "UCS-2", 1, 1, 69),
        ("a\t", "UCS-2", 2, 1, 68),
        ("字" * 70, "UCS-2", 70, 1, 0),
        ("字" * 71, "UCS-2", 71, 2, 63),
        ("字" * 134, "UCS-2", 134, 2, 0),
        ("👋", "UCS-2", 2, 1, 68),
        ("👋" * 35, "UCS-2", 70, 1, 0),
        ("👋" * 36, "UCS-2", 72, 2, 61),
        ("字" * 66 + "👋" + "字" * 66, "UCS-2", 134, 3, 66),
        ("字" * 65 + "👋" + "字" * 67, "UCS-2", 134, 2, 0),
        ("字" * 66 + "€" + "字" * 67, "UCS-2", 134, 2, 0),
    ],
)
def test_segments(text: str, encoding: str, units: int, count: int, left: int) -> None:
    found = sms.segments(text)
    assert (found.encoding, found.units, found.count, found.left) == (encoding, units, count, left)


def test_the_gsm_alphabet_is_whole() -> None:
    gsm = [chr(n) for n in range(0x10000) if sms.segments(chr(n)).encoding == "GSM-7"]
    assert len(gsm) == 127 + 10


def test_the_console_logs_a_masked_number_and_no_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sms.provider("console").send(TO, "the secret code is 4711", "ref-1")
    assert "+86138*****000" in caplog.text
    assert "ref-1" in caplog.text
    assert "4711" not in caplog.text
    assert TO not in caplog.text
    assert len(caplog.records) == 1


def test_even_the_shortest_number_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sms.Console().send("+29012345", "hello", "ref-1")
    assert "+29***345" in caplog.text


def test_json_gets_to_text_and_reference_once_and_intact(endpoint: Endpoint) -> None:
    gateway = sms.provider(f"json://{endpoint.address}/send/sms")
    gateway.send(TO, TEXT, "ref-1")
    [(path, _, body)] = endpoint.received
    assert gateway.name == "json"
    assert path == "/send/sms"
    assert json.loads(body) == {"to": TO, "text": TEXT, "reference": "ref-1"}


def test_form_gets_to_text_and_reference_once_and_intact(endpoint: Endpoint) -> None:
    sms.provider(f"form://{endpoint.address}/send").send(TO, TEXT, "ref-1")
    [(_, _, body)] = endpoint.received
    assert parse_qs(body.decode()) == {"to": [TO], "text": [TEXT], "reference": ["ref-1"]}


@pytest.mark.parametrize("scheme", ["json", "form"])
def test_the_url_renames_drops_and_adds_fields(endpoint: Endpoint, scheme: str) -> None:
    query = ":to=phone&:message=message&:reference=&:sender=Me&%2BX-Key=k&-key=q"
    sms.provider(f"{scheme}://{endpoint.address}/?{query}").send(TO, TEXT, "ref-1")
    [(path, headers, body)] = endpoint.received
    fields = json.loads(body) if scheme == "json" else dict(parse_qs(body.decode()))
    one = (lambda value: value) if scheme == "json" else (lambda value: [value])
    assert fields == {"phone": one(TO), "message": one(TEXT), "sender": one("Me")}
    assert (path, headers["X-Key"]) == ("/?key=q", "k")


@pytest.mark.parametrize("scheme", ["json", "form"])
async def test_the_id_of_the_request_goes_along_to_the_service(
    endpoint: Endpoint, scheme: str
) -> None:
    gateway = sms.provider(f"{scheme}://{endpoint.address}/?%2Btraceparent=mine")
    async with Quart("shop").app_context():
        baggage.carry(Baggage(request_id="abc-1", traceparent="theirs"))
        gateway.send(TO, TEXT, "ref-1")
    [(_, headers, _)] = endpoint.received
    assert (headers["X-Request-ID"], headers["traceparent"]) == ("abc-1", "mine")


def test_a_long_text_is_one_request_even_if_the_url_asks_to_split_it(endpoint: Endpoint) -> None:
    query = "overflow=split&retry=3&wait=0.01&format=markdown&emojis=yes"
    text = "*:smile:* <b> & 字\n" * 80
    sms.provider(f"json://{endpoint.address}/?{query}").send(TO, text, "ref-1")
    [(_, _, body)] = endpoint.received
    assert json.loads(body)["text"].rstrip() == text.rstrip()


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_an_answer_that_says_no_is_a_refusal(endpoint: Endpoint, status: int) -> None:
    endpoint.behaviour = answers(status)
    with pytest.raises(sms.Refused, match=f"answered HTTP {status}"):
        Gateway(f"json://{endpoint.address}/?retry=2").send(TO, TEXT, "ref-1")
    assert len(endpoint.received) == 1


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (503, {"Retry-After": "30"})])
def test_a_provider_that_asks_to_come_again_is_not_reached(
    endpoint: Endpoint, status: int, headers: dict[str, str]
) -> None:
    endpoint.behaviour = answers(status, **headers)
    with pytest.raises(sms.NotReached, match=f"takes none now: it answered HTTP {status}"):
        Gateway(f"json://{endpoint.address}/").send(TO, TEXT, "ref-1")
    assert len(endpoint.received) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 302, 307])
def test_an_answer_that_may_come_after_it_was_taken_leaves_the_outcome_unknown(
    endpoint: Endpoint, status: int
) -> None:
    endpoint.behaviour = answers(status, Location="/elsewhere")
    with pytest.raises(sms.OutcomeUnknown, match=f"answered HTTP {status}"):
        Gateway(f"json://{endpoint.address}/?redirect=yes").send(TO, TEXT, "ref-1")
    assert len(endpoint.received) == 1


@pytest.mark.parametrize("query", ["", "?rto=0.1&cto=0.1"])
def test_no_answer_in_time_leaves_the_outcome_unknown(endpoint: Endpoint, query: str) -> None:
    endpoint.behaviour = hangs
    gateway = Gateway(f"json://{endpoint.address}/{query}", timeout=0.2)
    with pytest.raises(sms.OutcomeUnknown, match="did not answer in time"):
        gateway.send(TO, TEXT, "ref-1")
    until(lambda: endpoint.received)  # its thread may have its turn only now
    assert len(endpoint.received) == 1


def test_a_connection_reset_midway_leaves_the_outcome_unknown(endpoint: Endpoint) -> None:
    endpoint.behaviour = resets
    with pytest.raises(sms.OutcomeUnknown, match="the connection broke"):
        Gateway(f"json://{endpoint.address}/").send(TO, TEXT, "ref-1")
    assert len(endpoint.received) == 1


def test_a_closed_port_is_not_reached(closed: str) -> None:
    with pytest.raises(sms.NotReached, match="no connection"):
        Gateway(f"json://{closed}/").send(TO, TEXT, "ref-1")


def test_a_name_that_does_not_exist_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(sms.NotReached, match="host name is not known"):
        Gateway("json://nowhere.invalid/").send(TO, TEXT, "ref-1")


TWILIO = "twilio://AC" + "0" * 32 + ":c0ffee@+12015550100"


@pytest.fixture
def twilio(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """Apprise's Twilio plugin, its service on loopback."""
    endpoint.behaviour = answers(201)
    monkeypatch.setattr(NotifyTwilio, "notify_sms_url", f"http://{endpoint.address}/{{sid}}")
    return endpoint


@pytest.mark.parametrize("target", ["", "/", "/+12015550199/+12015550198", "?to=12015550199"])
def test_twilio_writes_to_the_number_alone(twilio: Endpoint, target: str) -> None:
    gateway = sms.provider(TWILIO + target)
    gateway.send(TO, TEXT, "ref-1")
    [(_, _, body)] = twilio.received
    assert gateway.name == "twilio"
    assert parse_qs(body.decode()) == {"From": ["+12015550100"], "To": [TO], "Body": [TEXT]}


def test_a_number_that_a_service_drops_is_refused_and_goes_to_nobody(twilio: Endpoint) -> None:
    with pytest.raises(sms.Refused, match=r"does not take numbers such as \+29\*\*\*345"):
        Gateway(TWILIO).send("+29012345", TEXT, "ref-1")
    assert twilio.received == []


@pytest.mark.parametrize(
    "url",
    [
        "", "s3cret", "s3cret://key", "twilio://s3cret", "twilio://s3cret:s3cret@nobody",
        "json://", "json://user:s3cret@", "slack://T1JJ3T3L2/A1BRTD4JD/s3cretdnlazkcOXrIdevi7",
        "mailto://user:s3cret@example.com", "discord://4174216298/s3cret", "xml://u:s3cret@h",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_its_credentials(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    with pytest.raises(ValueError, match="expected console, json://") as refusal:
        sms.provider(url)
    assert "s3cret" not in repr(refusal.value) + caplog.text
    assert refusal.value.__context__ is None


@pytest.mark.parametrize("behaviour", [answers(200), answers(401), answers(502), hangs, resets])
def test_credentials_are_in_no_log_error_or_repr(
    endpoint: Endpoint, behaviour: Callable[[Answer], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    endpoint.behaviour = behaviour
    query = "%2BX-Key=s3cret&-key=s3cret&:key=s3cret"
    gateway = Gateway(f"json://u:s3cret@{endpoint.address}/s3cret?{query}", timeout=0.2)
    error = outcome(gateway)
    until(lambda: endpoint.received)
    assert "s3cret" in str(endpoint.received)
    assert "s3cret" not in caplog.text + repr(gateway) + repr(error)
    assert error is None or (error.__context__, error.__cause__) == (None, None)


def outcome(gateway: Gateway) -> Exception | None:
    try:
        gateway.send(TO, TEXT, "ref-1")
    except (sms.Refused, sms.NotReached, sms.OutcomeUnknown) as error:
        return error
    return None


def test_messages_sent_at_the_same_time_keep_their_own_outcome(endpoint: Endpoint) -> None:
    endpoint.behaviour = lambda request: answers(int(request.path[1:]))(request)
    gateways = [Gateway(f"json://{endpoint.address}/{n}") for n in (200, 400, 502) * 4]
    with ThreadPoolExecutor(12) as threads:
        found = [type(error) for error in threads.map(outcome, gateways)]
    assert found == [type(None), sms.Refused, sms.OutcomeUnknown] * 4


def test_a_job_makes_its_message_and_marks_it_before_it_is_sent(session: Session) -> None:
    message, go = sms.begin(session, "job-1", TO, TEXT, provider="twilio")
    assert go
    assert (message.state, message.to, message.text) == (SENDING, TO, TEXT)
    assert (message.job_id, message.provider, message.sent_at) == ("job-1", "twilio", None)
    assert abs(message.created_at - datetime.now(UTC)) < timedelta(seconds=10)


def test_what_the_provider_took_is_recorded_with_its_time(session: Session) -> None:
    message, _ = sms.begin(session, "job-1", TO, TEXT)
    sms.record(session, message.id, SENT)
    session.refresh(message)
    assert message.state == SENT
    assert message.sent_at is not None
    assert message.sent_at >= message.created_at


@pytest.mark.parametrize("state", [FAILED, UNKNOWN])
def test_what_it_refused_or_left_open_is_recorded_with_the_reason(
    session: Session, state: MessageState
) -> None:
    message, _ = sms.begin(session, "job-1", TO, TEXT)
    sms.record(session, message.id, state, "it answered HTTP 400")
    session.refresh(message)
    assert (message.state, message.error) == (state, "it answered HTTP 400")
    assert message.sent_at is None


@pytest.mark.parametrize("state", [SENT, UNKNOWN])
def test_a_message_that_somebody_has_or_may_have_is_not_sent_again(
    session: Session, state: MessageState
) -> None:
    first, _ = sms.begin(session, "job-1", TO, TEXT)
    sms.record(session, first.id, state)
    again, go = sms.begin(session, "job-1", TO, TEXT)
    assert (again.id, again.state, go) == (first.id, state, False)


def test_a_message_whose_attempt_died_within_the_call_becomes_unknown(session: Session) -> None:
    first, _ = sms.begin(session, "job-1", TO, TEXT)
    again, go = sms.begin(session, "job-1", TO, TEXT)
    assert (again.id, again.state, go) == (first.id, UNKNOWN, False)
    assert again.error is not None
    with pytest.raises(Conflict, match="cannot become sent"):
        sms.record(session, first.id, SENT)


@pytest.mark.parametrize("state", [WAITING, FAILED])
def test_a_message_that_nobody_has_is_sent_by_the_next_attempt(
    session: Session, state: MessageState
) -> None:
    first, _ = sms.begin(session, "job-1", TO, TEXT, provider="old")
    sms.record(session, first.id, state, "no connection")
    assert sms.due(session) == []
    again, go = sms.begin(session, "job-1", TO, TEXT, provider="new")
    assert (again.id, again.state, go) == (first.id, SENDING, True)
    assert (again.provider, again.error) == ("new", None)


@pytest.mark.parametrize(
    ("left", "found", "error"),
    [
        (WAITING, FAILED, "its job ended before it was handed over: no connection"),
        (SENDING, UNKNOWN, "its job ended while it was being handed over"),
    ],
)
def test_a_message_whose_job_ended_has_its_end_as_well(
    book: Book, left: MessageState, found: MessageState, error: str
) -> None:
    job = book.submit(sms.TASK, args=[TO, TEXT])
    message, _ = book(sms.begin, job.id, TO, TEXT)
    if left is WAITING:
        book(sms.record, message.id, WAITING, "no connection")
    book(jobs.cancel, job.id)
    ended = book(message_of, job.id)
    assert (ended.state, ended.error) == (found, error)
    book(jobs.retry, job.id)
    assert book(sms.begin, job.id, TO, TEXT)[1] is (left is WAITING)


def message_of(session: Session, job_id: str) -> Message:
    return session.scalars(select(Message).where(Message.job_id == job_id)).one()


def test_an_unknown_message_cannot_be_recorded(session: Session) -> None:
    with pytest.raises(Conflict):
        sms.record(session, "no-such-id", SENT)


def test_messages_are_due_when_their_time_has_come_oldest_first(session: Session) -> None:
    now = datetime.now(UTC)
    late, early = (sms.schedule(session, TO, TEXT, now - timedelta(minutes=m)) for m in (1, 2))
    sms.schedule(session, TO, TEXT, now + timedelta(minutes=1))
    sms.begin(session, "job-1", TO, TEXT)
    assert sms.due(session) == [early, late]
    assert sms.due(session, limit=1) == [early]


def for_later(book: Book, **options: Any) -> Message:
    later = datetime.now(UTC) + timedelta(hours=1)
    message: Message = book(sms.schedule, TO, TEXT, later, **options)
    return message


def audited(book: Book) -> list[tuple[str, str | None]]:
    entries = book(audit.search, exact={})
    return [(entry.action, entry.target) for entry in entries]


def test_a_message_for_later_keeps_who_asked_and_is_in_the_audit_log(book: Book) -> None:
    message = book(by_ada, datetime.now(UTC))
    assert message.context == {"user": "ada", "request_id": "abc-1"}
    assert audited(book) == [("message.schedule", message.id)]


def by_ada(session: Session, at: datetime) -> Message:
    baggage.carry(Baggage(user="ada", request_id="abc-1"))
    return sms.schedule(session, TO, TEXT, at)


def send_due(book: Book) -> dict[str, Any]:
    """As beat has a worker do it."""
    send = book.app.extensions["celery"].tasks["tasks.scheduler.send_sms"]
    done: dict[str, Any] = in_app_context(book.app, send)
    return done


def test_the_job_of_a_message_is_asked_for_by_whoever_scheduled_it(book: Book) -> None:
    message = book(by_ada, datetime.now(UTC) - timedelta(seconds=1))
    (job_id,) = send_due(book)["jobs"]
    assert book.job(job_id).context == message.context
    book.set(for_later(book), send_at=db.now(-1), context=None)
    (job_id,) = send_due(book)["jobs"]
    assert book.job(job_id).context == {}


def test_a_full_queue_gets_what_it_has_room_for_and_the_rest_waits(book: Book) -> None:
    for _ in range(3):
        book.set(for_later(book), send_at=db.now(-1))
    book.app.config["MAX_QUEUE_DEPTH"] = 2
    assert [send_due(book)["started"] for _ in range(2)] == [2, 0]
    assert (book.count(), len(book(sms.due))) == (2, 1)
    book.app.config["MAX_QUEUE_DEPTH"] = 3
    assert send_due(book)["started"] == 1


def test_a_worker_that_does_not_know_the_task_says_what_to_do(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.set(for_later(book), send_at=db.now(-1))
    monkeypatch.delitem(book.app.extensions["celery"].tasks, sms.TASK)
    with pytest.raises(Permanent, match=r"Name tasks\.background in CELERY_IMPORTS"):
        send_due(book)
    assert len(book(sms.due)) == 1


def test_a_message_that_is_scheduled_twice_with_one_key_is_one(book: Book) -> None:
    ids = at_once([partial(for_later, book, idempotency_key="k" * 64)] * 3)
    assert len({getattr(message, "id", message) for message in ids}) == 1
    assert (book.count(Message), len(audited(book))) == (1, 1)


def test_a_message_that_waits_for_its_time_is_cancelled_and_never_due(book: Book) -> None:
    message = for_later(book)
    book.set(message, send_at=db.now(-1))
    book(sms.cancel, message.id)
    assert book(sms.due) == []
    (cancelled,) = book(sms.recent)
    assert (cancelled.state, cancelled.error) == (FAILED, "cancelled before its time came")
    assert audited(book)[0] == ("message.cancel", message.id)


def test_a_message_that_has_a_job_or_its_end_is_not_cancelled(book: Book) -> None:
    message = for_later(book)
    book.set(message, job_id="1" * 36)
    with pytest.raises(Conflict, match="waits no longer"):
        book(sms.cancel, message.id)
    for unknown in ("no-such-id", "é"):
        with pytest.raises(NotFound, match="no message"):
            book(sms.cancel, unknown)
    assert [action for action, _ in audited(book)] == ["message.schedule"]


def test_of_a_cancel_and_a_job_that_meet_the_message_gets_one(book: Book) -> None:
    message = for_later(book)
    book.set(message, send_at=db.now(-1))
    took, cancelled = at_once([partial(book, take_due), partial(book, sms.cancel, message.id)])
    assert isinstance(took, list), took
    assert (took == [message.id]) is isinstance(cancelled, Conflict)
    (after,) = book(sms.recent)
    assert after.state is (WAITING if took else FAILED)


def take_due(session: Session) -> list[str]:
    found = sms.due(session)
    for message in found:
        message.job_id = "1" * 36
    return [message.id for message in found]


def test_those_that_wait_for_their_time_are_apart_from_the_rest(session: Session) -> None:
    now = datetime.now(UTC)
    late, early = (sms.schedule(session, TO, TEXT, now + timedelta(days=d)) for d in (2, 1))
    sent, _ = sms.begin(session, "job-1", TO, TEXT)
    assert sms.waiting(session, limit=2) == [early, late]
    assert sms.waiting(session, limit=1) == [early]
    assert sms.recent(session) == [sent]


def test_a_due_message_is_sent_by_the_job_that_was_made_for_it(session: Session) -> None:
    message = sms.schedule(session, TO, TEXT, datetime.now(UTC))
    assert (message.state, message.job_id) == (WAITING, None)
    message.job_id = "job-1"
    assert sms.due(session) == []
    assert sms.begin(session, "job-1", TO, TEXT, provider="console") == (message, True)
    assert (message.state, message.provider) == (SENDING, "console")


def test_the_recent_messages_come_newest_first(session: Session) -> None:
    made: list[Message] = [sms.begin(session, f"job-{n}", TO, TEXT)[0] for n in range(5)]
    assert sms.recent(session, limit=3) == made[:1:-1]
    assert len(sms.recent(session)) == 5
