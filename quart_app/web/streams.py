"""A job's events for what speaks HTTP alone: a list of them, and server-sent events."""

import json
import logging
from collections.abc import AsyncIterator, Iterable

from quart import Response, g, request
from sqlalchemy.orm import Session

from quart_app import db, events, jobs
from quart_app.errors import Full
from quart_app.events import Frame
from quart_app.seldom import in_brief
from quart_app.web import live
from quart_app.web.follower import Leave

MOST_SEQ = 2**31 - 1

logger = logging.getLogger(__name__)


async def event_list(job_id: str, after: int) -> Response:
    """All that are stored, read while they are sent: a long log would fill our memory."""
    read = db.get().read
    first = await read(_first, job_id, after)

    async def document() -> AsyncIterator[bytes]:
        page = first
        yield b'{"items":[' + _listed(page)[1:]
        try:
            while len(page) == events.PAGE:
                page = await read(events.since, job_id, page[-1]["seq"], events.PAGE)
                yield _listed(page)
        except db.AWAY as error:
            logger.warning("A list of events is cut off: %s", in_brief(error))
            # Quart leaves off without an end at this one, and the server cuts the connection.
            raise TimeoutError from error
        yield b"]}"

    return Response(document(), content_type="application/json")


async def event_stream(job_id: str, after: int) -> Response:
    """What the socket of the job says; `id:` is the seq. Raises Full and NotFound."""
    job = await db.read(jobs.get, job_id)
    if job.state in events.TERMINAL and after >= job.last_seq:
        return Response(status=204)  # to anything else an EventSource would come back for ever
    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(headers=headers)
    hub, token_id = live.get(), g.user.token_id
    if not hub.has_room(token_id):
        raise Full("Your token has too many sockets and streams open.")

    async def stream() -> AsyncIterator[bytes]:
        try:
            async with hub.open(token_id) as reader:
                await reader.follow({job_id: after})
                async for frame in reader.frames(hub.heartbeat):
                    yield _sse(frame)
        except (Leave, *db.AWAY) as reason:
            logger.info("A stream ends early: %s", type(reason).__name__)
            yield b"retry: 1000\n\n"

    response = Response(stream(), headers=headers)
    response.timeout = None
    return response


def last_seen(text: str | None, otherwise: int = 0) -> int:
    """A seq as a client has sent it."""
    known = text is not None and text.isascii() and text.isdecimal() and len(text) <= 10
    return min(int(text), MOST_SEQ) if text and known else otherwise


def _first(session: Session, job_id: str, after: int) -> list[Frame]:
    return events.since(session, jobs.get(session, job_id).id, after, events.PAGE)


def _listed(frames: Iterable[Frame]) -> bytes:
    """With a comma before each."""
    return "".join(f",{json.dumps(frame, ensure_ascii=False)}" for frame in frames).encode()


def _sse(frame: Frame) -> bytes:
    if not frame:
        return b": still here\n\n"
    seq = f"id: {frame['seq']}\n" if "seq" in frame else ""
    return f"{seq}data: {json.dumps(frame, ensure_ascii=False)}\n\n".encode()
