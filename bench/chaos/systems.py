"""What is put under load: this application, and plain Celery beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.parts import python

#: What reliability advice for Celery on Redis comes to: late acks, short timeouts, a lean worker.
_BEST = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "broker_transport_options": {
        "visibility_timeout": 10,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    "broker_connection_max_retries": None,
}
_LEAN = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass(frozen=True)
class System:
    """How its parts are started."""

    name: str
    celery: str
    env: Mapping[str, str]
    worker_words: tuple[str, ...] = ()
    is_ours: bool = field(default=False, kw_only=True)

    def web(self, port: int) -> list[str]:
        bind = ("--bind", f"127.0.0.1:{port}")
        if self.is_ours:
            return python("quart", "--app", "asgi", "serve", *bind)
        return python("hypercorn", "bench.chaos.plain:web", *bind)

    def worker(self, name: str) -> list[str]:
        words = ("--loglevel=info", "-c", "2", "-n", f"{name}@%h", *self.worker_words)
        return python("celery", "-A", self.celery, "worker", *words)

    def beat(self, name: str, folder: Path) -> list[str]:
        own_file = () if self.is_ours else ("-s", str(folder / name))
        return python("celery", "-A", self.celery, "beat", "--loglevel=info", *own_file)


_SCHEDULE = {"tick": {"task": "bench.chaos.tasks.work", "schedule": 1, "kwargs": {"ms": 1}}}
OURS = System(
    "Quartermaster",
    "tasks",
    {
        "CELERY_IMPORTS": "bench.chaos.tasks",
        "CELERY_BEAT_SCHEDULE": json.dumps(_SCHEDULE),
        "SECRET_KEY": "known to nobody but this run",
        "ALLOW_DIRECT_CALLS": "false",
    },
    is_ours=True,
)
PLAIN = System("Celery", "bench.chaos.plain", {})
BEST = System("Celery, late", "bench.chaos.plain", {"CHAOS_SETTINGS": json.dumps(_BEST)}, _LEAN)
