"""post: one durable job for each request, by one web process on Hypercorn and MariaDB."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event, Thread

from redis import Redis

from bench import load, webs
from bench.figures import Goal, Line
from bench.load import Request
from bench.ours import Site, Web
from bench.run import Run
from bench.side import Side
from bench.webs import Peer

CONNECTIONS = 32
#: Of one figure: after three the relay rings again what nobody has heard, and no worker is here.
MOST_SECONDS = 2.0
_EMPTIED_EVERY = 0.02


def measure(run: Run) -> Sequence[Line]:
    hello = webs.hello("hypercorn")
    goals = {webs.GUIDE.name: Goal("≥", 2.0), hello.name: Goal("≥", 0.5)}
    others = [webs.GUIDE, hello]
    if not run.quick:
        others += [webs.GUIDE_THREADS, webs.GUIDE_FORGETS, webs.QUART]
    return compare(run, "post", "hypercorn", others, goals)


def compare(
    run: Run, name: str, server: str, others: Sequence[Peer], goals: dict[str, Goal]
) -> Sequence[Line]:
    """Ours beside each of the others, all of them up, and one of them under load at a time."""
    with ExitStack() as stack:
        site = Site(run, f"post_{server}")
        web = stack.enter_context(site.web(server))
        sides = [Side("ours", partial(_ours, run, site, web))]
        for number, peer in enumerate(others, 1):
            url = f"{run.redis}/{number}"
            request = stack.enter_context(peer.web(run, url))
            sides.append(Side(peer.name, partial(_theirs, run, request, url)))
        for side in sides:
            run.warm_up(side.measure)
        found = run.measure(sides)
    return [
        Line(name, "jobs/s", found["ours"], goals.get(peer.name), peer.name, found[peer.name])
        for peer in others
    ]


def _ours(run: Run, site: Site, web: Web) -> float:
    with emptied(site.redis_url):
        answered = _load(run, web.submit())
        # wrk leaves what it has in flight when its time is up, as it did the last time.
        assert 0 <= site.count() - answered.count <= 2 * CONNECTIONS, "each 202 is a row"
        site.wait_until_published()
    site.empty()
    return answered.rate


def _theirs(run: Run, request: Request, redis_url: str) -> float:
    with emptied(redis_url):
        return _load(run, request).rate


def _load(run: Run, request: Request) -> load.Answered:
    seconds = min(run.seconds, MOST_SECONDS)
    return load.put(request, run.folder, connections=CONNECTIONS, seconds=seconds)


@contextmanager
def emptied(redis_url: str) -> Iterator[None]:
    """Takes away what is queued, as workers would: no list grows, and nobody pays for a worker."""
    done = Event()

    def sweep() -> None:
        with Redis.from_url(redis_url) as redis:
            while not done.wait(_EMPTIED_EVERY):
                redis.flushdb()

    sweeper = Thread(target=sweep)
    sweeper.start()
    try:
        yield
    finally:
        done.set()
        sweeper.join()
