"""growth: what the ledger's verbs take in a small table and in one of a million jobs."""

from collections.abc import Mapping, Sequence
from statistics import median

from bench.figures import Goal, Line
from bench.ours import Site
from bench.run import Run

_FEW, _MANY, _MANY_QUICK = 1_000, 1_000_000, 5_000
_TURNS = 50
#: Jobs that have ended, a second apart, each with its event; those to come are newer.
_JOBS = """
INSERT INTO jobs (id, task, args, kwargs, queue, priority, state, attempt, max_attempts, losses,
  on_lost, last_seq, accepted_at, available_at, published_at, rings, started_at, finished_at,
  worker, cancel_requested, context)
SELECT CONCAT('01900000-0000-7000-8000-', LPAD(LOWER(HEX(seq)), 12, '0')), 'bench.tasks.nothing', '[]',
  '{}', 'celery', 0, 'succeeded', 1, 1, 0, 'retry', 3, at, at, at, 1, at, at, 'bench', 0, '{}'
FROM (SELECT seq, TIMESTAMPADD(SECOND, CAST(seq AS SIGNED) - %s, UTC_TIMESTAMP(6)) AS at FROM seq_1_to_1000000
  WHERE seq <= %s) AS numbered
"""
_EVENTS = """
INSERT INTO events (job_id, seq, at, type, data)
SELECT id, 1, accepted_at, 'state', '{"state":"queued","attempt":0}' FROM jobs
"""


def measure(run: Run) -> Sequence[Line]:
    many = run.pick(_MANY, _MANY_QUICK)
    few_site, many_site = _filled(run, "few", _FEW, 1), _filled(run, "many", many, 2)
    found: dict[str, tuple[list[float], list[float]]] = {}
    for number in range(run.rounds + 1):
        rounds = [_medians(run, site) for site in (many_site, few_site)]
        if number:  # the first warms up
            for verb in rounds[0]:
                many_ms, few_ms = found.setdefault(verb, ([], []))
                many_ms.append(rounds[0][verb])
                few_ms.append(rounds[1][verb])
    peer = f"at {_FEW:,} rows"
    return [
        Line(f"growth, {verb}", "ms", many_ms, Goal("≤", 1.2), peer, few_ms)
        for verb, (many_ms, few_ms) in found.items()
    ]


def _medians(run: Run, site: Site) -> Mapping[str, float]:
    took = run.inside("growth", site.settings, times=run.pick(_TURNS, 5))
    return {verb: median(each) for verb, each in took.items()}


def _filled(run: Run, name: str, rows: int, redis_number: int) -> Site:
    site = Site(run, name, redis_number)
    run.say(f"{rows:,} rows ...")
    site.query(_JOBS, rows, rows)
    site.query(_EVENTS)
    site.query("ANALYZE TABLE jobs, events")
    return site
