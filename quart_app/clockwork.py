"""Submits what has become due: each due time of a schedule once, however many beats look."""

import logging
import time
from datetime import datetime, timedelta
from itertools import takewhile

from quart import current_app
from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from quart_app import db, duetimes, schedules
from quart_app.errors import Problem
from quart_app.models import Schedule

#: How many missed due times the policy "all" makes up for at most.
MOST_MISSED = 100
#: Seconds by which a due time may be late and still not count as missed.
GRACE = 60.0
_MOST_A_TICK = 100
_PUT_OFF_FOR = 60.0

logger = logging.getLogger(__name__)


def tick(session: Session) -> float:
    """Submits what is due; seconds until the next due time, 60 at most.

    Looks by a session of its own that only reads: `session` is used, and locks SQLite for others,
    only when there is something to submit.
    """
    with db.session(reading=True) as looking:
        at = db.clock(looking)
        waiting = select(Schedule).where(
            Schedule.paused.is_(False),
            Schedule.next_at.is_not(None),
            Schedule.id.not_in(_put_off()),
        )
        by_time = waiting.order_by(Schedule.next_at, Schedule.id)
        soonest = looking.scalars(by_time.limit(_MOST_A_TICK)).all()
    due = [schedule for schedule in soonest if schedule.next_at and schedule.next_at <= at]
    for schedule in due:
        _fire_alone(session, schedule, at)
    if due or not soonest:
        return 0.0 if due else 60.0
    return min(60.0, ((soonest[0].next_at or at) - at).total_seconds())


def _fire_alone(session: Session, schedule: Schedule, at: datetime) -> None:
    """Fires it so that, whatever is wrong with one schedule, the others go on."""
    try:
        with session.begin_nested():
            _fire(session, schedule, at)
    except db.AWAY:
        raise
    except Exception:  # a zone that this machine does not know, say
        logger.exception("Schedule %s could not be fired, and waits a minute.", schedule.name)
        # Its due time stays as it is: it may be another beat's to fire, or this one's once mended.
        _put_off()[schedule.id] = time.monotonic() + _PUT_OFF_FOR


def _put_off() -> dict[str, float]:
    """The schedules that this process leaves alone for now, and until when."""
    known: dict[str, float] = current_app.extensions.setdefault("schedules_put_off", {})
    for schedule_id in [id_ for id_, until in known.items() if until < time.monotonic()]:
        del known[schedule_id]
    return known


def _fire(session: Session, seen: Schedule, at: datetime) -> None:
    """Submits the due times that its policy wants; of any number of beats one gets to do it."""
    same = (Schedule.id == seen.id, Schedule.next_at == seen.next_at, Schedule.paused.is_(False))
    # Read again and held: it may have been changed, or fired by another beat, since it was seen.
    schedule = session.scalar(select(Schedule).where(*same).with_for_update())
    if schedule is None:
        return
    wanted = _wanted(schedule, at)
    schedule.next_at = duetimes.next_after(schedule, at)
    for due_at in wanted:
        _submit(session, schedule, due_at)


def _wanted(schedule: Schedule, at: datetime) -> list[datetime]:
    passed = _passed(schedule, at, MOST_MISSED if schedule.missed == "all" else 1)
    late = (at - passed[-1]).total_seconds() > GRACE
    return [] if schedule.missed == "skip" and late else passed


def _passed(schedule: Schedule, at: datetime, most: int) -> list[datetime]:
    """Its newest due times up to `at`, without going through all since a beat last ran."""
    first = schedule.next_at or at
    window = timedelta(minutes=2)
    while True:
        since = max(first, at - window)
        found = list(takewhile(lambda due: due <= at, duetimes.after(schedule, since)))
        if since == first or len(found) >= most:
            return [*([first] if since == first else []), *found][-most:]
        window *= 60


def _submit(session: Session, schedule: Schedule, due_at: datetime) -> None:
    try:
        with session.begin_nested():
            schedules.submit(session, schedule, due_at)
    except IntegrityError:
        pass  # there is a job for this due time
    except (Problem, DataError) as problem:
        logger.error("Schedule %s made no job: %s", schedule.name, problem)
    except db.AWAY:
        raise
    except Exception:  # the task's own check of its arguments may raise anything
        logger.exception("Schedule %s made no job.", schedule.name)
