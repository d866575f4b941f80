"""What clients send over their sockets, held until it is read: bounded, however much they send."""

import asyncio
import time
from typing import Any

from hypercorn.protocol.ws_stream import WebsocketBuffer, WSStream
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from quart import Quart
from quart.asgi import ASGIWebsocketConnection
from wsproto.events import Message

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
        size = _size(frame)
        self._waiting += size
        if size > MOST_BYTES:
            self.refuse_size()
        elif not self._may_send():
            self._refuse(Leave(TOO_MANY, "too many frames"))
        elif not self._is_shut:
            self.put_nowait(frame)

    def refuse_size(self) -> None:
        self._refuse(Leave(_TOO_BIG, f"too big: a frame may have {MOST_BYTES} bytes"))

    async def get(self) -> Any:
        """The next frame; raises Leave when the client has sent too much."""
        frame = await super().get()
        if isinstance(frame, Leave):
            raise frame
        self._waiting -= _size(frame)
        return frame

    def _may_send(self) -> bool:
        now = time.monotonic()
        grown = self._allowance + (now - self._counted_at) * self._rate
        self._allowance, self._counted_at = min(grown, self._rate * _BURST_SECONDS) - 1, now
        return self._allowance >= 0 and self._waiting <= _MOST_WAITING

    def _refuse(self, refusal: Leave) -> None:
        if not self._is_shut:
            self._is_shut = True
            self.put_nowait(refusal)


class Connection(ASGIWebsocketConnection):
    """A WebSocket as Quart serves it, whose queue of incoming frames has no bound of its own."""

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        super().__init__(app, scope)
        self.queue: Inbox = Inbox(app.config["MAX_FRAMES_PER_SECOND"])
        self._is_gone = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        stream = getattr(send, "__self__", None)
        if not isinstance(stream, WSStream):
            await super().__call__(receive, send)
            return
        stream.buffer = _Buffer(self.queue)
        # Compressed, a small frame may unfold to a thousand times its size before it is seen; and
        # each socket would keep some 300 KB for it.
        stream.handshake.extensions = None
        try:
            await super().__call__(receive, send)
        finally:
            # Hypercorn would wait for ever to hand over what still comes, before it cuts it off.
            self._dropping = asyncio.create_task(self.handle_messages(receive))

    async def handle_messages(self, receive: ASGIReceiveCallable) -> None:
        while not self._is_gone:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                self._is_gone = True
            elif event["type"] == "websocket.receive":
                # An empty binary frame comes with or without a text, by the server.
                self.queue.take(event.get("text") or event.get("bytes") or "")


class _Buffer(WebsocketBuffer):
    """Hypercorn's own goes on to grow after its limit, for as long as a client sends."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(MOST_BYTES)
        self._inbox = inbox

    def extend(self, event: Message[Any]) -> None:
        if self.length + len(event.data) > self.max_length:
            self._inbox.refuse_size()
        else:
            super().extend(event)


def _size(frame: str | bytes) -> int:
    return len(frame.encode() if isinstance(frame, str) else frame)
