"""What goes wrong, by name; each says what it did, or nothing when it could not."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random

from redis.exceptions import RedisError

from bench.chaos import clocks
from bench.chaos.place import BEATS, WEBS, WORKERS, Place

Fault = Callable[[Place, Random], str | None]


def _kill(*names: str, whole: bool = False, down: tuple[float, float] = (0.5, 1.0)) -> Fault:
    def fault(place: Place, random: Random) -> str | None:
        name, seconds = random.choice(names), random.uniform(*down)
        killed = place.crew.kill(name, whole=whole, down=seconds)
        return f"{name} killed, back after {seconds:.1f} s" if killed else None

    return fault


def _freeze(*names: str, low: float, high: float) -> Fault:
    """One of them, with its pool; of two or more there is always one that goes on."""

    def fault(place: Place, random: Random) -> str | None:
        free = [(name, pid) for name in names if (pid := _free(place, name))]
        if len(free) < min(len(names), 2):
            return None
        (name, pid), seconds = random.choice(free), random.uniform(low, high)
        frozen = place.crew.freeze([pid, *place.crew.parts[name].children()], seconds)
        return f"{name} frozen for {seconds:.1f} s" if frozen else None

    return fault


def _free(place: Place, name: str) -> int | None:
    """The process of a part that is neither dead nor frozen."""
    pid = place.crew.parts[name].pid
    return None if pid is None or place.crew.is_frozen(pid) else pid


def _child(place: Place, random: Random, *, leave: int = 0) -> tuple[str, int] | None:
    """One of a pool that is not frozen yet, if more than `leave` are not."""
    found = [(name, pid) for name in WORKERS for pid in place.crew.parts[name].children()]
    free = [(name, pid) for name, pid in found if not place.crew.is_frozen(pid)]
    return random.choice(free) if len(free) > leave else None


def _child_kill(place: Place, random: Random) -> str | None:
    found = _child(place, random)
    if found and place.crew.kill_child(found[1]):
        return f"child {found[1]} of {found[0]} killed"
    return None


def _child_freeze(place: Place, random: Random) -> str | None:
    found, seconds = _child(place, random, leave=1), random.uniform(5, 25)
    if found and place.crew.freeze([found[1]], seconds):
        return f"child {found[1]} of {found[0]} frozen for {seconds:.1f} s"
    return None


def _redis_kill_empty(place: Place, random: Random) -> str | None:
    seconds = random.uniform(0.2, 2)
    stored = [place.redis_folder / "appendonlydir"]
    if not place.crew.kill("redis", down=seconds, forgets=stored):
        return None
    return f"redis killed, back after {seconds:.1f} s with nothing"


def _redis_flush(place: Place, _: Random) -> str | None:
    with place.redis() as redis, suppress(RedisError):
        redis.flushall()
        return "redis flushed"
    return None


def _disk_full(place: Place, random: Random) -> str | None:
    seconds = random.uniform(1, 5)
    if not place.disk:
        return None
    place.disk.fill()
    place.crew.after(seconds, place.disk.free)
    return f"disk full for {seconds:.1f} s"


def _clock_jump(place: Place, random: Random) -> str | None:
    """Of one process: no time that matters may come from there."""
    if not place.clocks:
        return None
    name, seconds = random.choice((*WEBS, *WORKERS, *BEATS)), random.uniform(5, 25)
    ahead = random.choice((-1, 1)) * random.uniform(30, 7200)
    place.clocks.set(name, ahead)
    place.crew.after(seconds, partial(place.clocks.set, name, 0))
    return f"clock of {name} off by {ahead:+.0f} s for {seconds:.1f} s"


FAULTS: dict[str, Fault] = {
    "web-kill": _kill(*WEBS),
    "web-freeze": _freeze(*WEBS, low=2, high=8),
    "worker-kill": _kill(*WORKERS),
    "worker-kill-all": _kill(*WORKERS, whole=True),
    "worker-freeze": _freeze(*WORKERS, low=5, high=25),
    "child-kill": _child_kill,
    "child-freeze": _child_freeze,
    "beat-kill": _kill(*BEATS),
    "beat-freeze": _freeze(*BEATS, low=2, high=8),
    "redis-kill": _kill("redis", down=(0.2, 2)),
    "redis-kill-empty": _redis_kill_empty,
    "redis-flush": _redis_flush,
    "redis-freeze": _freeze("redis", low=1, high=6),
    "db-kill": _kill("mariadb", down=(0.2, 2)),
    "db-freeze": _freeze("mariadb", low=1, high=6),
    "disk-full": _disk_full,
    "clock-jump": _clock_jump,
}
MIXED = "mixed"


def possible(fault: str, database: str) -> list[Fault]:
    """What `fault` comes to here."""
    names = list(FAULTS) if fault == MIXED else [fault]
    return [FAULTS[name] for name in names if not why_not(name, database)]


def why_not(fault: str, database: str) -> str:
    """Why it cannot happen here; empty if it can."""
    if database == "sqlite" and fault.startswith("db-"):
        return "SQLite has no server that could be hurt"
    if database == "sqlite" and fault == "clock-jump":
        return "SQLite has no clock but that of each process"
    return clocks.WANTED if fault == "clock-jump" and not clocks.COMPILER else ""


def fills_disks(fault: str) -> bool:
    return fault in (MIXED, "disk-full")


def sets_clocks(fault: str, database: str) -> bool:
    return fault in (MIXED, "clock-jump") and not why_not("clock-jump", database)
