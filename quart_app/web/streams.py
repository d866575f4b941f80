"""A job's events as server-sent events, for what speaks HTTP alone."""

import json
import logging
from collections.abc import AsyncIterator

from quart import Response, g, make_response

from quart_app import db
from quart_app.errors import Full
from quart_app.events import Frame
from quart_app.web import live
from quart_app.web.follower import Leave

MOST_SEQ = 2**31 - 1

logger = logging.getLogger(__name__)


async def event_stream(job_id: str, after: int) -> Response:
    """What the socket of the job says; `id:` is the seq. Raises Full."""
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

    headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    response: Response = await make_response(stream(), 200, headers)  # type: ignore[assignment]
    response.timeout = None
    return response


def last_seen(text: str | None, otherwise: int = 0) -> int:
    """A seq as a client has sent it."""
    known = text is not None and text.isascii() and text.isdecimal() and len(text) <= 10
    return min(int(text), MOST_SEQ) if text and known else otherwise


def _sse(frame: Frame) -> bytes:
    if not frame:
        return b": still here\n\n"
    seq = f"id: {frame['seq']}\n" if "seq" in frame else ""
    return f"{seq}data: {json.dumps(frame, ensure_ascii=False)}\n\n".encode()
