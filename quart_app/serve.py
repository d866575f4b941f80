"""The web as `up` runs it: Hypercorn in this process, its sockets let go before it stops."""

import asyncio
import signal
import sys
from socket import socket
from types import ModuleType

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from quart import Quart

resource: ModuleType | None
try:
    import resource
except ImportError:  # on Windows
    resource = None

_MOST_FILES = 65_536


async def serve(app: Quart, sock: socket) -> None:
    """Serves on this listening socket, which is closed with it, until SIGINT or SIGTERM."""
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.graceful_timeout = 5
    config.backlog = 1_024  # all sockets of a server that restarts come back at once
    config.websocket_ping_interval = 20
    _allow_many_sockets()
    stop = asyncio.Event()
    if sys.platform != "win32":  # its loop knows no signals: there Ctrl-C cancels this coroutine
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def drained() -> None:
        await stop.wait()
        # Hypercorn waits for open sockets before anything else: they have to go first.
        app.extensions["live"].drain()
        _stop_pings()

    await hypercorn_serve(app, config, shutdown_trigger=drained)


def _allow_many_sockets() -> None:
    """As many open files as the system lets this process have: the usual limit is 1,024."""
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _stop_pings() -> None:
    # Each sleeps out its interval first, and its connection counts as open until then.
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == "WSStream._send_pings":
            task.cancel()
