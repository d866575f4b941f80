"""Who may call what: each call is declared here, and whoever is refused has changed nothing."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import websockets
from quart import Quart
from sqlalchemy import select, update
from werkzeug.routing import Rule

from quart_app import db, jobs, schedules, sms, tokens
from quart_app.models import Base, Job, JobState, Node, Role, Token
from tests.book import ADD
from tests.conftest import Caller, caller, make_token
from tests.ledger import Ledger
from tests.web.following import Served, drain
from tests.web.test_problems import problem

ANYONE, VIEWER, OPERATOR, ADMIN = None, Role.VIEWER, Role.OPERATOR, Role.ADMIN
JOB, SCHEDULE = {"task": ADD, "args": [1]}, {"name": "new", "task": ADD, "args": [1]}
BODIES: dict[str, Any] = {
    "/api/jobs": JOB, "/api/jobs/batch": {"jobs": [JOB]}, "/api/tasks/<name>": {"left": 1},
    "/api/jobs/cancel": {"task": ADD}, "/api/jobs/retry": {"task": ADD},
    "/api/schedules": SCHEDULE | {"interval": 60}, "/api/schedules/<schedule_id>": {"interval": 9},
}  # fmt: skip
NEEDS: dict[str, dict[str, Role | None]] = {
    "/task": {"POST": OPERATOR},
    "/api/jobs": {"GET": VIEWER, "POST": OPERATOR},
    "/api/jobs/batch": {"POST": OPERATOR},
    "/api/jobs/cancel": {"POST": OPERATOR},
    "/api/jobs/retry": {"POST": OPERATOR},
    "/api/jobs/<job:job_id>": {"GET": VIEWER},
    "/api/jobs/<job_id>/events": {"GET": VIEWER},
    "/api/jobs/<job_id>/why": {"GET": VIEWER},
    "/api/jobs/<job_id>/cancel": {"POST": OPERATOR},
    "/api/jobs/<job_id>/retry": {"POST": OPERATOR},
    "/api/tasks": {"GET": VIEWER},
    "/api/tasks/<name>": {"POST": OPERATOR},
    "/api/schedules": {"GET": VIEWER, "POST": ADMIN},
    "/api/schedules/<schedule_id>": {"GET": VIEWER, "PATCH": ADMIN, "DELETE": ADMIN},
    "/api/schedules/<schedule_id>/run": {"POST": OPERATOR},
    "/api/schedules/<schedule_id>/pause": {"POST": ADMIN},
    "/api/schedules/<schedule_id>/resume": {"POST": ADMIN},
    "/api/schedules/<schedule_id>/next": {"GET": VIEWER},
    "/api/workers": {"GET": VIEWER},
    "/api/queues": {"GET": VIEWER},
    "/api/audit": {"GET": ADMIN},
    "/openapi.json": {"GET": VIEWER},
    "/metrics": {"GET": VIEWER},
    "/healthz": {"GET": ANYONE},
    "/readyz": {"GET": ANYONE},
    "/ws": {"WEBSOCKET": VIEWER},
    "/ws/jobs/<job_id>": {"WEBSOCKET": VIEWER},
    "/": {"GET": VIEWER},
    "/jobs": {"GET": VIEWER},
    "/jobs/<job_id>": {"GET": VIEWER}, "/jobs/<job_id>/parts": {"GET": VIEWER},
    "/jobs/<job_id>/cancel": {"POST": OPERATOR},
    "/jobs/<job_id>/retry": {"POST": OPERATOR},
    "/schedules": {"GET": VIEWER, "POST": ADMIN},
    "/schedules/new": {"GET": ADMIN},
    "/schedules/<schedule_id>": {"GET": VIEWER},
    "/schedules/<schedule_id>/change": {"GET": ADMIN, "POST": ADMIN},
    "/schedules/<schedule_id>/run": {"POST": OPERATOR},
    "/schedules/<schedule_id>/pause": {"POST": ADMIN},
    "/schedules/<schedule_id>/resume": {"POST": ADMIN},
    "/schedules/<schedule_id>/delete": {"GET": ADMIN, "POST": ADMIN},
    "/queues": {"GET": VIEWER},
    "/workers": {"GET": VIEWER},
    "/audit": {"GET": ADMIN},
    "/sms": {"GET": VIEWER, "POST": OPERATOR},
    "/sms/<message_id>/cancel": {"POST": OPERATOR},
    "/docs": {"GET": VIEWER},
    "/docs/swagger-ui/<path:filename>": {"GET": VIEWER},
    "/static/<path:filename>": {"GET": ANYONE},
    "/sign-in": {"GET": ANYONE, "POST": ANYONE},
    "/sign-in/<code>": {"GET": ANYONE},
    "/sign-out": {"POST": VIEWER},
}  # fmt: skip
SOCKETS = [rule for rule, needs in NEEDS.items() if "WEBSOCKET" in needs]


def methods(rule: Rule) -> set[str]:
    return {"WEBSOCKET"} if rule.websocket else set(rule.methods or ())


def calls() -> list[tuple[str, str, Role]]:
    """Method, rule and least role of each call that not everyone may make."""
    found = [
        (method, rule, role)
        for rule, needs in NEEDS.items()
        for method, role in [*needs.items(), ("OPTIONS", VIEWER)]
        if role and None not in needs.values() and rule not in SOCKETS
    ]
    return found + [("HEAD", rule, role) for method, rule, role in found if method == "GET"]


@pytest.fixture
def things(still: Ledger) -> dict[str, str]:
    """What the calls are about, so that one let through would change something."""

    def make(session: Any) -> dict[str, str]:
        waits = jobs.submit(session, ADD, args=[1], delay=3600)
        failed = jobs.submit(session, ADD, args=[1], delay=3600)
        failed_now = {"state": JobState.FAILED, "finished_at": db.now()}
        session.execute(update(Job).where(Job.id == failed.id).values(failed_now))
        schedule = schedules.create(session, "old", ADD, args=[1], interval=3600)
        message = sms.schedule(session, "+1", "x", datetime.now(UTC))
        known = {"name": ADD, "schedule_id": schedule.id, "filename": "x", "message_id": message.id}
        return known | {"job_id": waits.id, "failed": failed.id}

    return still.within(make)


def address(rule: str, things: dict[str, str]) -> str:
    """With what is there in the places of the rule's parameters."""
    names = things | ({"job_id": things["failed"]} if rule.endswith("/retry") else {})
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: names[found[1]], rule)


async def call(client: Caller, method: str, rule: str, things: dict[str, str]) -> Any:
    body = {"json": BODIES[rule]} if rule in BODIES and method in ("POST", "PATCH") else {}
    return await client.open(address(rule, things), method=method, **body)


def rows(still: Ledger) -> dict[str, list[str]]:
    """All that the tables hold but what is noted of tokens and nodes as time goes by."""
    noted = Token.__table__.c.used_at
    kept = {
        table.name: select(*[column for column in table.c if column is not noted])
        for table in Base.metadata.sorted_tables
        if table.name != Node.__tablename__
    }
    return still.within(
        lambda session: {
            name: sorted(map(repr, session.execute(wanted))) for name, wanted in kept.items()
        }
    )


def nobody(_: Quart) -> dict[str, str]:
    return {}


def bad(_: Quart) -> dict[str, str]:
    return {"Authorization": "Bearer qm_wrong"}


def revoked(app: Quart) -> dict[str, str]:
    secret = make_token(app.extensions["db"], Role.ADMIN, "revoked")
    with app.extensions["db"].session() as session:
        tokens.revoke(session, "revoked")
    return {"Authorization": f"Bearer {secret}"}


def expired(app: Quart) -> dict[str, str]:
    secret = make_token(app.extensions["db"], Role.ADMIN, "expired", expires=timedelta(days=1))
    with app.extensions["db"].session() as session:
        past = update(Token).where(Token.name == "expired").values(expires_at=db.now(-1))
        session.execute(past)
    return {"Authorization": f"Bearer {secret}"}


Stranger = Callable[[Quart], dict[str, str]]
strangers = pytest.mark.parametrize("stranger", [nobody, bad, revoked, expired])


def test_every_call_is_declared_here_and_no_other(app: Quart) -> None:
    there: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        there.setdefault(rule.rule, set()).update(methods(rule) - {"HEAD", "OPTIONS"})
    assert there == {rule: set(needs) for rule, needs in NEEDS.items()}


@strangers
async def test_a_stranger_is_refused_every_call_and_changes_nothing(
    app: Quart, still: Ledger, things: dict[str, str], stranger: Stranger
) -> None:
    client = Caller(app.test_client(), stranger(app))
    before = rows(still)
    for method, rule, _ in calls():
        answer = await call(client, method, rule, things)
        assert answer.status_code == 401, (method, rule)
        if rule.startswith("/api") and method != "HEAD":
            await problem(answer, 401)
    assert rows(still) == before


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
async def test_a_role_too_low_is_refused_what_needs_a_higher_one_and_changes_nothing(
    app: Quart, still: Ledger, things: dict[str, str], role: Role
) -> None:
    client = caller(app, role)
    before = rows(still)
    ranks = list(Role)
    too_high = [each for each in calls() if ranks.index(each[2]) > ranks.index(role)]
    assert too_high
    for method, rule, needed in too_high:
        answer = await call(client, method, rule, things)
        assert answer.status_code == 403, (method, rule)
        if method != "HEAD":
            assert needed in (await problem(answer, 403))["detail"]
    assert rows(still) == before


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_do_all_that_is_declared_for_it(
    app: Quart, things: dict[str, str], role: Role
) -> None:
    client = caller(app, role)
    unknown = dict.fromkeys(things, "unknown")
    ranks = list(Role)
    for method, rule, needed in calls():
        if ranks.index(needed) <= ranks.index(role):
            answer = await call(client, method, rule, unknown)
            assert answer.status_code not in (401, 403, 500), (method, rule)


@pytest.mark.parametrize("rule", SOCKETS)
async def test_a_stranger_is_closed_by_every_socket(
    served: Served, still: Ledger, things: dict[str, str], rule: str
) -> None:
    path = address(rule, things)
    secrets = [stranger(still.app) for stranger in (nobody, bad, revoked, expired)]
    before = rows(still)
    for headers in secrets:
        url = f"{served.socket_address}{path}"
        async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
            assert await drain(socket) == ([], 4401)
    assert rows(still) == before
