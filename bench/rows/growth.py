"""growth: what the ledger's verbs take in a small table and in one of a million jobs."""

from collections.abc import Sequence
from functools import partial

from bench.figures import Goal, Line
from bench.ours import Site
from bench.rows.post import emptied
from bench.run import Run

_FEW, _MANY, _MANY_QUICK = 1_000, 1_000_000, 5_000
_TURNS = 50
#: So many rows that MariaDB inserts them well within the patience of a connection.
_AT_ONCE = 50_000
_ID = "CONCAT('01900000-0000-7000-8000-', LPAD(LOWER(HEX(seq)), 12, '0'))"
_NUMBERS = """(
  SELECT seq, TIMESTAMPADD(SECOND, CAST(seq AS SIGNED) - %s, UTC_TIMESTAMP(6)) AS at
  FROM seq_1_to_1000000 WHERE seq > %s AND seq <= %s
) AS numbered"""
#: Jobs that have ended, a second apart, each with its event; those to come are newer.
_JOBS = f"""
INSERT INTO jobs (id, task, args, kwargs, queue, priority, state, attempt, max_attempts, losses,
  on_lost, last_seq, accepted_at, available_at, published_at, rings, started_at, finished_at,
  worker, cancel_requested, context)
SELECT {_ID}, 'bench.tasks.nothing', '[]', '{{}}', 'celery', 0, 'succeeded', 1, 1, 0,
  'retry', 1, at, at, at, 1, at, at,
  'bench', 0, '{{}}'
FROM {_NUMBERS}
"""
_EVENTS = f"""
INSERT INTO events (job_id, seq, at, type, data)
SELECT {_ID}, 1, at, 'state', '{{"state":"queued","attempt":0}}' FROM {_NUMBERS}
"""


def measure(run: Run) -> Sequence[Line]:
    few, many = _filled(run, "few", _FEW), _filled(run, "many", run.pick(_MANY, _MANY_QUICK))
    urls = [few.database_url, many.database_url]
    turn = partial(run.inside, "growth", few.settings, database_urls=urls)
    with emptied(few.redis_url):
        run.warm_up(partial(turn, times=_TURNS))
        rounds = [turn(times=run.pick(_TURNS, 5)) for _ in range(run.rounds)]
    return [
        Line(
            f"growth, {verb}",
            "ms",
            [many_took[verb] for _, many_took in rounds],
            Goal("≤", 1.2),
            f"at {_FEW:,} rows",
            [few_took[verb] for few_took, _ in rounds],
        )
        for verb in rounds[0][0]
    ]


def _filled(run: Run, name: str, rows: int) -> Site:
    site = Site(run, name)
    run.say(f"{rows:,} rows ...")
    for start in range(0, rows, _AT_ONCE):
        part = rows, start, min(start + _AT_ONCE, rows)
        site.query(_JOBS, *part)
        site.query(_EVENTS, *part)
    site.query("ANALYZE TABLE jobs, events")
    return site
