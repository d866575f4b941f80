"""What the database says afterwards: what was lost, what came twice, and what must never be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from bench.chaos.tables import accepted, starts
from quart_app import db
from quart_app.jobs import WAITING
from quart_app.models import Event, Job, JobState

TERMINAL = "('succeeded', 'failed', 'cancelled')"
_RUNNING = """data LIKE '{"state":"running"%'"""
_LAST = " OR ".join(
    f"""data LIKE '{{"state":"{state}"%'""" for state in ("succeeded", "failed", "cancelled")
)

#: Each names the jobs that it holds for, of which there must be none.
INVARIANTS = {
    "accepted, and not ended": f"""
        SELECT a.job_id FROM accepted a LEFT JOIN jobs j ON j.id = a.job_id
        WHERE j.id IS NULL OR j.state NOT IN {TERMINAL}""",
    "more than one effect": """
        SELECT job_id FROM effects GROUP BY job_id HAVING COUNT(*) > 1""",
    "succeeded without effect": """
        SELECT j.id FROM jobs j LEFT JOIN effects e ON e.job_id = j.id
        WHERE j.state = 'succeeded' AND e.job_id IS NULL""",
    "an effect of an attempt that did not succeed": """
        SELECT e.job_id FROM effects e LEFT JOIN jobs j ON j.id = e.job_id
        WHERE j.id IS NULL OR j.state <> 'succeeded' OR j.attempt <> e.attempt""",
    "ended by an attempt that was not its last": f"""
        SELECT e.job_id FROM events e JOIN jobs j ON j.id = e.job_id
        WHERE ({_LAST}) AND JSON_EXTRACT(e.data, '$.attempt') <> j.attempt""",
    "one attempt started twice": """
        SELECT job_id FROM starts GROUP BY job_id, attempt HAVING COUNT(*) > 1""",
    "attempts not in order": f"""
        SELECT DISTINCT job_id FROM (
            SELECT job_id, JSON_EXTRACT(data, '$.attempt') AS attempt,
                   ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY seq) AS expected
            FROM events WHERE {_RUNNING}) numbered
        WHERE attempt <> expected""",
    "more attempts than it may have": """
        SELECT id FROM jobs WHERE attempt > max_attempts + losses""",
    "a gap in its events": """
        SELECT j.id FROM jobs j LEFT JOIN (
            SELECT job_id, COUNT(*) AS n, MIN(seq) AS low, MAX(seq) AS high
            FROM events GROUP BY job_id) e ON e.job_id = j.id
        WHERE e.n IS NULL OR e.low <> 1 OR e.high <> e.n OR j.last_seq <> e.n""",
    "not one last event, at the end": f"""
        SELECT j.id FROM jobs j JOIN (
            SELECT job_id, COUNT(*) AS n, MAX(seq) AS high
            FROM events WHERE {_LAST} GROUP BY job_id) e ON e.job_id = j.id
        WHERE e.n <> 1 OR e.high <> j.last_seq OR j.state NOT IN {TERMINAL}
        UNION ALL
        SELECT j.id FROM jobs j WHERE j.state IN {TERMINAL} AND NOT EXISTS (
            SELECT 1 FROM events e WHERE e.job_id = j.id AND ({_LAST}))""",
    "two jobs of one due time": """
        SELECT MIN(id) FROM jobs WHERE schedule_id IS NOT NULL
        GROUP BY schedule_id, eta HAVING COUNT(*) > 1""",
}  # fmt: skip


@dataclass
class Findings:
    """Counts, the longest of what had to be waited for, and the jobs that break an invariant."""

    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    twice: int = 0
    effectless: int = 0
    restarted: int = 0
    #: Seconds and the job: between two starts of it, and from its 202 to the first.
    recovery: tuple[float, str] = (0.0, "")
    wait: tuple[float, str] = (0.0, "")
    broken: dict[str, list[str]] = field(default_factory=dict)

    @property
    def conspicuous(self) -> list[str]:
        """The jobs that one would want to know more about."""
        wrong = [job_id for jobs in self.broken.values() for job_id in jobs[:20]]
        slow = [job_id for _, job_id in (self.recovery, self.wait) if job_id]
        return [*dict.fromkeys(wrong + slow)]


def of_the_ledger(session: Session) -> Findings:
    broken = {name: found for name, sql in INVARIANTS.items() if (found := _ids(session, sql))}
    broken |= _overdue(session)
    states = dict(_rows(session, """
        SELECT j.state, COUNT(*) FROM accepted a JOIN jobs j ON j.id = a.job_id
        GROUP BY j.state"""))  # fmt: skip
    running = select(Event.job_id, Event.at).where(text(_RUNNING))
    return Findings(
        succeeded=states.get("succeeded", 0),
        failed=states.get("failed", 0) + states.get("cancelled", 0),
        lost=len(broken.get("accepted, and not ended", ())),
        twice=len(broken.get("more than one effect", ())),
        effectless=len(broken.get("succeeded without effect", ())),
        restarted=_restarted(session),
        recovery=_longest_gap(session.execute(running.order_by(Event.job_id, Event.seq)).all()),
        wait=_longest_wait(session),
        broken=broken,
    )


def of_plain_celery(session: Session) -> Findings:
    """What has no effect is lost: there is nothing else to ask."""
    begun = select(starts.c.job_id, starts.c.at).order_by(starts.c.job_id, starts.c.at)
    effectless = _ids(session, """
        SELECT a.job_id FROM accepted a LEFT JOIN effects e ON e.job_id = a.job_id
        WHERE e.job_id IS NULL""")  # fmt: skip
    total = len(_ids(session, "SELECT job_id FROM accepted"))
    return Findings(
        succeeded=total - len(effectless),
        lost=len(effectless),
        twice=len(_ids(session, INVARIANTS["more than one effect"])),
        restarted=_restarted(session),
        recovery=_longest_gap(session.execute(begun).all()),
        wait=_longest_wait(session),
    )


def story(session: Session, job_id: str) -> str:
    """All that is known of one job, a line for each event and each start."""
    job = session.get(Job, job_id)
    if job is None:
        return f"{job_id}: no such job"
    names = ("state", "attempt", "losses", "rings", "accepted_at", "published_at", "worker")
    head = ", ".join(f"{name} {getattr(job, name)}" for name in names)
    happened = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
    began = select(starts.c.at, starts.c.attempt).where(starts.c.job_id == job_id)
    lines = [
        f"  {event.at:%H:%M:%S.%f} {event.type} {event.data}" for event in session.scalars(happened)
    ]
    lines += [f"  {at:%H:%M:%S.%f} its body began, attempt {n}" for at, n in session.execute(began)]
    return "\n".join([f"{job_id}: {head}", *sorted(lines)])


def _overdue(session: Session) -> dict[str, list[str]]:
    """What time has run out for, by the database's clock."""
    running, queued = Job.state == JobState.RUNNING, Job.state == JobState.QUEUED
    found = {
        "runs, ten seconds after its lease": (running, Job.lease_until < db.now(-10)),
        "due for half a minute, and overlooked": (queued, Job.available_at < _came_later(session)),
    }
    ids = {name: session.scalars(select(Job.id).where(*rule)).all() for name, rule in found.items()}
    return {name: list(jobs) for name, jobs in ids.items() if jobs}


def _came_later(session: Session) -> datetime:
    """What was due before this is not waiting its turn: later ones had theirs, or nobody has."""
    at = session.scalars(select(db.now())).one()
    claimed = select(func.max(Job.available_at), func.max(Job.started_at)).where(
        Job.state.not_in(WAITING)
    )
    newest, last = session.execute(claimed).one()
    half_a_minute = timedelta(seconds=30)
    is_idle = last is None or last < at - half_a_minute
    return (at if is_idle else min(at, newest)) - half_a_minute


def _restarted(session: Session) -> int:
    return len(_ids(session, "SELECT job_id FROM starts GROUP BY job_id HAVING COUNT(*) > 1"))


def _longest_gap(begun: Iterable[Sequence[object]]) -> tuple[float, str]:
    """Between two starts of one job, given in order."""
    longest = (0.0, "")
    for job_id, group in groupby(begun, itemgetter(0)):
        for (_, one), (_, two) in pairwise(group):
            assert isinstance(one, datetime)
            assert isinstance(two, datetime)
            longest = max(longest, ((two - one).total_seconds(), str(job_id)))
    return longest


def _longest_wait(session: Session) -> tuple[float, str]:
    begun = select(starts.c.job_id, accepted.c.at, starts.c.at).join(
        accepted, accepted.c.job_id == starts.c.job_id
    )
    first: dict[str, float] = {}
    for job_id, was_accepted, at in session.execute(begun):
        seconds = (at - was_accepted).total_seconds()
        first[job_id] = min(first.get(job_id, seconds), seconds)
    return max(((seconds, job_id) for job_id, seconds in first.items()), default=(0.0, ""))


def _ids(session: Session, sql: str) -> list[str]:
    return list(session.scalars(text(sql)))


def _rows(session: Session, sql: str) -> list[tuple[str, int]]:
    return [(str(state), int(count)) for state, count in session.execute(text(sql))]
