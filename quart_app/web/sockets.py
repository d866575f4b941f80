"""The sockets on which a browser or a program follows one job, or many."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from quart import Blueprint, current_app, websocket

from quart_app import db
from quart_app.errors import Invalid, Problem
from quart_app.web import auth, commands, live
from quart_app.web.auth import User
from quart_app.web.commands import Command
from quart_app.web.follower import TOO_MANY, Leave
from quart_app.web.reader import Reader, error_frame
from quart_app.web.streams import last_seen

blueprint = Blueprint("live", __name__)

_SEND_SECONDS = 10
_CLOSE_SECONDS = 2
_FAULT = 1011
_TOO_SLOW = Leave(TOO_MANY, "too slow")

#: Reads what the client says for as long as it may talk; raises Leave when it may not.
Hears = Callable[[Reader], Coroutine[Any, Any, None]]

logger = logging.getLogger(__name__)


@blueprint.websocket("/ws/jobs/<job_id>")
async def job_socket(job_id: str) -> None:
    """Replays a job's events after `?after=`, then follows it to its end."""
    await _attend(partial(_one_job, job_id))


@blueprint.websocket("/ws")
async def jobs_socket() -> None:
    """Follows the jobs that the client names, until it goes."""
    await _attend(_many_jobs)


async def _attend(talk: Callable[[User], Awaitable[None]]) -> None:
    await websocket.accept()
    leave = await _outcome(talk)
    patience = _SEND_SECONDS if leave is _TOO_SLOW else _CLOSE_SECONDS
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await websocket.close(leave.code, leave.reason)
            # Until it has gone: cut off while it talks, it would not see why.
            await asyncio.sleep(patience)


async def _outcome(talk: Callable[[User], Awaitable[None]]) -> Leave:
    """Talks to the client until its end or ours; why it is over."""
    try:
        await talk(await _user())
    except Leave as leave:
        return leave
    except TimeoutError:
        return _TOO_SLOW
    except (Problem, *db.AWAY) as problem:
        logger.warning("A socket has to come again: %s", type(problem).__name__)
        return Leave(TOO_MANY, "not available: try again soon")
    except Exception:
        logger.exception("A socket failed.")
        return Leave(_FAULT, "something went wrong here; it has been logged")
    return Leave(1000, "the job has ended")


async def _user() -> User:
    """Raises Leave for whoever may not follow jobs."""
    if not auth.is_known_host(websocket.host):
        raise Leave(4403, "unknown host")
    if not auth.is_same_origin(websocket.headers, websocket.host):
        raise Leave(4403, "this origin may not connect")
    user = await auth.socket_user()
    if user is None:
        raise Leave(4401, "no or bad token")
    return user


async def _one_job(job_id: str, user: User) -> None:
    after = last_seen(websocket.args.get("after"))
    if not commands.may_be_one(job_id):
        raise Leave(4404, "there is no such job")
    async with live.get().open(user.token_id) as reader:
        await reader.follow({job_id: after})
        await _converse(reader, _hear_nothing)


async def _many_jobs(user: User) -> None:
    async with live.get().open(user.token_id, lasting=True) as reader:
        await _converse(reader, _hear_commands)


async def _converse(reader: Reader, hear: Hears) -> None:
    """Sends until done, reading all the while: a client that talks would else fill our memory."""
    tasks = [asyncio.create_task(_send_frames(reader)), asyncio.create_task(hear(reader))]
    either: list[asyncio.Future[Any]] = [*tasks, reader.leaving]
    try:
        done, _ = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if reader.leaving in done:
            raise reader.leaving.result()
        (tasks[0] if tasks[0] in done else tasks[1]).result()
    finally:
        await live.end(tasks)


async def _send_frames(reader: Reader) -> None:
    async for frame in reader.frames():
        text = json.dumps(frame, ensure_ascii=False)
        async with asyncio.timeout(_SEND_SECONDS):  # wait_for may miss that it is cancelled
            await websocket.send(text)


async def _hear_nothing(_: Reader) -> None:
    """What the client says is read and dropped: a flood ends it all the same."""
    while True:
        await websocket.receive()


async def _hear_commands(reader: Reader) -> None:
    while True:
        frame = await websocket.receive()
        try:
            command = commands.parse(frame)
        except Invalid as problem:
            reader.say(error_frame(str(problem)))
        else:
            await _obey(reader, command)


async def _obey(reader: Reader, command: Command) -> None:
    most, hub = current_app.config["MAX_FOLLOWS_PER_SOCKET"], live.get()
    if command.unfollow_all:
        await hub.ignore_all(reader)
    await reader.unfollow(command.unfollow)
    if len(reader.followers.keys() | command.cursors.keys()) > most:
        raise Leave(TOO_MANY, f"too many: a socket may follow {most} jobs")
    for id_ in command.unknown:
        reader.say(error_frame(f"There is no job {id_}.", id_))
    if command.follow_all:
        await hub.follow_all(reader)
    await reader.follow(command.cursors)
    if command.pings:
        reader.say({"type": "pong"})
