"""The peers' webs: what each is served by, with one process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from bench.load import Request
from bench.ours import answers, serving
from bench.parts import free_port
from bench.run import Run
from bench.venvs import OLDER_REDIS, USUAL, interpreter


@dataclass(frozen=True)
class Peer:
    """`words` are the module to run and its arguments, for a port."""

    name: str
    words: Callable[[int], Sequence[str]]
    requirements: str = USUAL
    #: Whether results are kept, in the same Redis, as the study guide has it.
    keeps_results: bool = field(default=False, kw_only=True)

    @contextmanager
    def web(self, run: Run, redis_url: str) -> Iterator[Request]:
        """The request that has a task queued, once it is served."""
        port, log = free_port(), self.name.replace(" ", "-")
        env = {"PEER_REDIS": redis_url}
        if self.keeps_results:
            env["PEER_RESULTS"] = redis_url
        argv = [str(interpreter(self.requirements)), "-m", *self.words(port)]
        with run.process(log, argv, env) as process:
            run.wait_for(log, process, lambda: answers(f"http://127.0.0.1:{port}/healthz"))
            yield Request(f"http://127.0.0.1:{port}/task")


def _gunicorn(app: str, port: int, *words: str) -> Sequence[str]:
    return ["gunicorn", app, "--bind", f"127.0.0.1:{port}", "--workers", "1", *words]


def _by(server: str, app: str) -> Callable[[int], Sequence[str]]:
    return partial(serving, server, f"bench.peers.{app}:app")


_GUIDE = partial(_gunicorn, "bench.peers.guide:app")
#: Gunicorn's default worker; with threads it keeps connections open, which may suit wrk better.
GUIDE = Peer("Flask+Celery", _GUIDE, keeps_results=True)
GUIDE_THREADS = Peer(
    "Flask+Celery, threads",
    lambda port: _GUIDE(port, "--worker-class", "gthread", "--threads", "4"),
    keeps_results=True,
)
GUIDE_FORGETS = Peer("Flask+Celery, no results", _GUIDE)
QUART = Peer("Quart+delay()", _by("hypercorn", "quart_celery"))


def fastapi(server: str) -> dict[str, Peer]:
    """FastAPI with each of the queues, by name."""
    older = {"arq", "saq"}
    return {
        queue: Peer(
            f"FastAPI+{queue}, {server}",
            _by(server, f"fastapi_{queue}"),
            OLDER_REDIS if queue in older else USUAL,
        )
        for queue in ("celery", "arq", "taskiq", "saq")
    }


def hello(server: str) -> Peer:
    return Peer(f"hello world, {server}", _by(server, "hello"))
