"""Clients that are gone without a word, a cable pulled or a laptop shut: found by the kernel."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

_HANDLES = Path("/dev/fd")
#: Seconds: a quiet client is asked after the first, then every so often; what it was sent may
#: stay unacknowledged as long as the last.
_OPTIONS = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_USER_TIMEOUT": 30_000}


def watch() -> None:
    """Has all connections to the ports of this process watched, those to come too; once is enough.

    No ASGI server hands over its sockets, but they are this process's, whichever server it is.
    """
    ports = {_port(each) for each in _tcp_sockets() if _listens(each)}
    for each in _tcp_sockets():
        if _port(each) in ports:
            _watch(each)  # and what it accepts inherits it


def _tcp_sockets() -> Iterator[socket.socket]:
    """Each that is open here, only lent: to close but a copy of a file unlocks it for SQLite."""
    names = [path.name for path in _HANDLES.iterdir()] if _HANDLES.is_dir() else []
    for name in names:
        with contextlib.suppress(OSError):  # it is none, or closed by now
            found = socket.socket(fileno=int(name))
            try:
                if found.family in (socket.AF_INET, socket.AF_INET6):
                    yield found
            finally:
                found.detach()


def _port(each: socket.socket) -> int:
    return int(each.getsockname()[1])


def _listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _watch(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS.items():
            if hasattr(socket, name):  # not all systems have all of them
                each.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
