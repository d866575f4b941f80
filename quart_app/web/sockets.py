"""The sockets and streams on which a browser or a program follows a job."""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator

from quart import Blueprint, Response, current_app, g, make_response, websocket

from quart_app import db, jobs
from quart_app.errors import NotFound, Problem
from quart_app.events import Frame
from quart_app.web import auth, problems
from quart_app.web.auth import User
from quart_app.web.follower import Leave
from quart_app.web.live import Hub

blueprint = Blueprint("live", __name__)

_SEND_SECONDS = 10
_CLOSE_SECONDS = 2
_MOST_EMPTY, _EMPTY_SECONDS = 100, 10
_MOST_SEQ = 2**31 - 1
_FAULT, _TOO_MANY = 1011, 1013

logger = logging.getLogger(__name__)


@blueprint.websocket("/ws/jobs/<job_id>")
async def job_socket(job_id: str) -> None:
    """Replays a job's events after `?after=`, then follows it to its end."""
    await websocket.accept()
    leave = await _serve(job_id)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await websocket.close(leave.code, leave.reason)
            await _outlast()


async def event_stream(job_id: str, after: int) -> Response:
    """The same as server-sent events; `id:` is the seq."""
    hub, token_id = _hub(), g.user.token_id

    async def stream() -> AsyncIterator[bytes]:
        try:
            async with hub.follow(job_id, after, token_id) as follower:
                async for frame in follower.frames(hub.heartbeat):
                    yield _sse(frame)
        except (Leave, *problems.AWAY) as reason:
            logger.info("A stream ends early: %s", type(reason).__name__)
            yield b"retry: 1000\n\n"

    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    response: Response = await make_response(stream(), 200, headers)  # type: ignore[assignment]
    response.timeout = None
    return response


def last_seen(text: str | None, otherwise: int = 0) -> int:
    """A seq as a client has sent it."""
    known = text is not None and text.isascii() and text.isdecimal() and len(text) <= 10
    return min(int(text), _MOST_SEQ) if text and known else otherwise


async def _serve(job_id: str) -> Leave:
    """Follows the job to its end or the client's; why it is over."""
    try:
        await _converse(job_id)
    except Leave as leave:
        return leave
    except TimeoutError:
        return Leave(_TOO_MANY, "too slow")
    except (Problem, *problems.AWAY) as problem:
        logger.warning("A socket has to come again: %s", type(problem).__name__)
        return Leave(_TOO_MANY, "not available: try again soon")
    except Exception:
        logger.exception("A socket failed.")
        return Leave(_FAULT, "something went wrong here; it has been logged")
    return Leave(1000, "the job has ended")


async def _converse(job_id: str) -> None:
    """Sends until done, reading all the while: a client that talks would else fill our memory."""
    sending = asyncio.create_task(_send_frames(job_id))
    tasks = [sending, asyncio.create_task(_hear_nothing())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (sending if sending in done else done.pop()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_frames(job_id: str) -> None:
    user, after = await _user(job_id), last_seen(websocket.args.get("after"))
    async with _hub().follow(job_id, after, user.token_id) as follower:
        async for frame in follower.frames():
            text = json.dumps(frame, ensure_ascii=False)
            await asyncio.wait_for(websocket.send(text), _SEND_SECONDS)


async def _user(job_id: str) -> User:
    """Raises Leave for whoever may not follow this job."""
    if not auth.is_known_host(websocket.host):
        raise Leave(4403, "unknown host")
    if not auth.is_same_origin(websocket.headers, websocket.host):
        raise Leave(4403, "this origin may not connect")
    user = await auth.socket_user()
    if user is None:
        raise Leave(4401, "no or bad token")
    try:
        await db.read(jobs.get, job_id)
    except NotFound:
        raise Leave(4404, "there is no such job") from None
    return user


async def _hear_nothing() -> None:
    """Raises Leave when the client talks; an empty frame now and then does no harm."""
    times: deque[float] = deque(maxlen=_MOST_EMPTY)
    while not await websocket.receive():
        times.append(time.monotonic())
        if len(times) == _MOST_EMPTY and times[-1] - times[0] < _EMPTY_SECONDS:
            raise Leave(_TOO_MANY, "too many frames")
    raise Leave(_TOO_MANY, "too many: nothing is expected on this socket")


async def _outlast() -> None:
    """Until the client has gone: cut off while it talks, it would not see why."""
    while True:
        await websocket.receive()


def _hub() -> Hub:
    hub: Hub = current_app.extensions["live"]
    return hub


def _sse(frame: Frame) -> bytes:
    if not frame:
        return b": still here\n\n"
    seq = f"id: {frame['seq']}\n" if "seq" in frame else ""
    return f"{seq}data: {json.dumps(frame, ensure_ascii=False)}\n\n".encode()
