"""worker: how many tasks that do nothing a pool of two processes gets through."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from celery import Celery
from redis import Redis
from sqlalchemy import make_url

from bench.figures import Goal, Line
from bench.ours import NOTHING, Site, Web
from bench.parts import ROOT, environment, made_database
from bench.run import Run
from bench.side import Side
from bench.venvs import OLDER_REDIS, interpreter

_BATCH = 500
#: What counts begins when this share is left: the pool is warm by then.
_FROM = 0.8
#: As Celery's guide to optimizing has it for many short tasks.
_LEAN = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--prefetch-multiplier=64")
_DATABASE, _NOTHING_KEPT, _SAQ = "Celery, database results", "Celery, no results", "SAQ, 2 workers"


def measure(run: Run) -> Sequence[Line]:
    goals = {_DATABASE: Goal("≥", 1.0), _NOTHING_KEPT: Goal("≥", 0.6)}
    count = run.pick(2_000, 500)
    site = Site(run, "worker")
    results = f"db+{run.mariadb.replace('mysql:', 'mysql+pymysql:')}/results"
    made_database(make_url(run.mariadb).port or 0, "results")
    with site.web() as web:
        sides = [
            Side("ours", partial(_ours, run, site, web, count)),
            Side(_DATABASE, partial(_celery, run, count, {"PEER_RESULTS": results})),
            Side(_NOTHING_KEPT, partial(_celery, run, count, {})),
        ]
        if not run.quick:
            sides.append(Side(_SAQ, partial(_saq, run, count)))
        found = run.measure(sides)
    return [
        Line("worker", "jobs/s", found["ours"], goals.get(side.name), side.name, found[side.name])
        for side in sides[1:]
    ]


def _ours(run: Run, site: Site, web: Web, count: int) -> float:
    for _ in range(count // _BATCH):
        web.call("POST", "/api/jobs/batch", json={"jobs": [{"task": NOTHING}] * _BATCH})
    with site.worker("--concurrency=2"):
        rate = _rate(count, lambda: site.count("state <> 'succeeded'"))
    site.empty()
    return rate


def _celery(run: Run, count: int, results: Mapping[str, str]) -> float:
    url = f"{run.redis}/1"
    with Celery(broker=url, set_as_current=False) as sender, sender.producer_pool.acquire() as one:
        for _ in range(count):
            sender.send_task("nothing", producer=one)
    words = ["celery", "-A", "bench.peers.celery_worker", "worker", "--loglevel=warning", *_LEAN]
    argv = [str(interpreter()), "-m", *words, "--concurrency=2"]
    with (
        run.process("celery-worker", argv, {"PEER_REDIS": url, **results}),
        Redis.from_url(url) as redis,
    ):
        return _rate(count, lambda: redis.llen("celery") + redis.hlen("unacked"))


def _saq(run: Run, count: int) -> float:
    url = f"{run.redis}/2"
    python, env = str(interpreter(OLDER_REDIS)), {"PEER_REDIS": url}
    fill = [python, "-m", "bench.peers.fill_saq", str(count)]
    subprocess.run(fill, cwd=ROOT, env=environment(env), check=True)
    argv = [python, "-m", "saq", "bench.peers.fastapi_saq.settings", "--workers", "2"]
    with run.process("saq", argv, env), Redis.from_url(url) as redis:
        return _rate(count, lambda: redis.zcard("saq:default:incomplete"))


def _rate(count: int, left: Callable[[], int]) -> float:
    """Jobs a second, from when the work is well under way until nothing is left."""
    deadline = time.monotonic() + 300
    begun: tuple[float, int] | None = None
    while remaining := left():
        if begun is None and remaining <= count * _FROM:
            begun = time.monotonic(), remaining
        if time.monotonic() > deadline:
            raise TimeoutError(f"{remaining} of {count} jobs are left")
        time.sleep(0.01)
    if begun is None:
        raise RuntimeError("it was over before it was looked at: more jobs are needed")
    return begun[1] / (time.monotonic() - begun[0])
