"""What a view's own submit takes on a loop, beside the INSERT of the same row and nothing else."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import insert
from sqlalchemy.orm import Session

from asgi import app
from quart_app import db, jobs, newjobs
from quart_app.models import Job

_AT_ONCE = 32
_TASK = "bench.tasks.nothing"
_NOW = datetime.now(UTC)


def figures(rounds: int, seconds: float) -> Mapping[str, Sequence[float]]:
    """Microseconds for each, round by round."""
    return asyncio.run(_measure(rounds, seconds))


async def _measure(rounds: int, seconds: float) -> Mapping[str, Sequence[float]]:
    sides = {"submit": _submit, "insert": _insert}
    found: dict[str, list[float]] = {name: [] for name in sides}
    async with app.app_context():
        for call in sides.values():  # warms it up
            await _cost(call, seconds / 4)
        for _ in range(rounds):
            for name, call in sides.items():
                found[name].append(await _cost(call, seconds))
        await db.get().close()
    await asyncio.to_thread(app.extensions["publisher"].close)
    return found


async def _submit() -> None:
    await db.run(jobs.submit, _TASK)


async def _insert() -> None:
    await db.run(_insert_row)


def _insert_row(session: Session) -> None:
    wanted = newjobs.NewJob(task=_TASK)
    made = newjobs.row(wanted)
    newjobs.start(made, wanted, _NOW)
    values = {name: value for name, value in vars(made).items() if not name.startswith("_")}
    session.execute(insert(Job), values)


async def _cost(call: Callable[[], Awaitable[None]], seconds: float) -> float:
    began = time.perf_counter()

    async def one_after_the_other() -> int:
        done = 0
        while time.perf_counter() < began + seconds:
            await call()
            done += 1
        return done

    counts = await asyncio.gather(*(one_after_the_other() for _ in range(_AT_ONCE)))
    return (time.perf_counter() - began) / sum(counts) * 1e6
