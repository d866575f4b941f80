"""What clients send over their sockets, held until it is read: bounded, however much they send."""

import asyncio
import time
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, WebsocketScope
from quart import Quart
from quart.asgi import ASGIWebsocketConnection

from quart_app.web.follower import TOO_MANY, Leave

#: Bytes of one frame.
MOST_BYTES = 64 * 1024
_MOST_WAITING = 16 * MOST_BYTES
_BURST_SECONDS = 5
_TOO_BIG = 1009


class Inbox(asyncio.Queue[Any]):
    """The frames of one socket; the first that is too much is refused, and all after it dropped."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate
        self._allowance, self._counted_at = rate * _BURST_SECONDS, time.monotonic()
        self._waiting = 0
        self._is_shut = False

    def take(self, frame: str | bytes) -> None:
        """Never waits: a client that is not read any more is still heard when it goes."""
        if self._is_shut:
            return
        size = len(frame.encode() if isinstance(frame, str) else frame)
        self._waiting += size
        if refusal := self._refusal(size):
            self._is_shut = True
            self.put_nowait(refusal)
        else:
            self.put_nowait(frame)

    async def get(self) -> Any:
        """The next frame; raises Leave when the client has sent too much."""
        frame = await super().get()
        if isinstance(frame, Leave):
            raise frame
        self._waiting -= len(frame.encode() if isinstance(frame, str) else frame)
        return frame

    def _refusal(self, size: int) -> Leave | None:
        if size > MOST_BYTES:
            return Leave(_TOO_BIG, f"a frame may have {MOST_BYTES} bytes")
        now = time.monotonic()
        grown = self._allowance + (now - self._counted_at) * self._rate
        self._allowance, self._counted_at = min(grown, self._rate * _BURST_SECONDS) - 1, now
        if self._allowance < 0 or self._waiting > _MOST_WAITING:
            return Leave(TOO_MANY, "too many frames")
        return None


class Connection(ASGIWebsocketConnection):
    """A WebSocket as Quart serves it, whose queue of incoming frames has no bound of its own."""

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        super().__init__(app, scope)
        self.queue: Inbox = Inbox(app.config["MAX_FRAMES_PER_SECOND"])

    async def handle_messages(self, receive: ASGIReceiveCallable) -> None:
        while (event := await receive())["type"] != "websocket.disconnect":
            if event["type"] == "websocket.receive":
                # An empty binary frame comes with or without a text, by the server.
                self.queue.take(event.get("text") or event.get("bytes") or "")
