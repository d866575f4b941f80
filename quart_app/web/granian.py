"""What Granian needs of a socket: it loses the code of a close while the application reads."""

import asyncio
import sys
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Quart

from quart_app.web import inbox


def init_app(app: Quart) -> None:
    if "granian" in sys.modules:  # it has loaded us
        app.asgi_websocket_class = Connection


class Connection(inbox.Connection):
    """Reads until it closes, and again, to hear that the client has gone, once it has closed."""

    async def handle_messages(self, receive: ASGIReceiveCallable) -> None:
        self._has_closed = asyncio.Event()

        async def receive_around_a_close() -> Any:
            while True:
                self._reading = asyncio.ensure_future(receive())
                try:
                    await asyncio.wait([self._reading])
                    return self._reading.result()
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task and task.cancelling():  # it is not for the close alone
                        self._reading.cancel()
                        raise
                    await self._has_closed.wait()

        await super().handle_messages(receive_around_a_close)

    async def close_connection(self, send: ASGISendCallable, code: int, reason: str) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        try:
            await super().close_connection(send, code, reason)
        finally:
            self._has_closed.set()
