"""Where the web listens: from `--bind HOST:PORT` to a socket, and to the address people type."""

import ipaddress
import socket

from quart_app.errors import Problem


class BadAddress(Problem):
    """Nothing can listen there; the text says why, and what to do."""


def listen(bind: str) -> socket.socket:
    """The socket all web processes share; it outlives each of them.

    `bind` is `HOST:PORT`, `:PORT` or `[HOST]:PORT`. Raises BadAddress.
    """
    name, _, port = bind.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise BadAddress(f"--bind {bind}: expected HOST:PORT, such as 127.0.0.1:8000")
    name = name.strip("[]") or "127.0.0.1"
    sock = socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((name, int(port)))
        sock.listen(1024)
    except (OSError, UnicodeError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or error
        raise BadAddress(f"--bind {bind}: {reason}; choose another HOST:PORT") from None
    return sock


def handed_down(number: int) -> socket.socket:
    """The listening socket that this process was started with. Raises BadAddress."""
    try:
        return socket.socket(fileno=number)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadAddress(f"--fd {number}: {reason}; expected a listening socket") from None


def address(sock: socket.socket) -> str:
    """What a browser on this machine opens."""
    name, port = reached_at(sock)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def host(sock: socket.socket) -> str:
    """The bound address as a Host header has it."""
    name: str = sock.getsockname()[0]
    return f"[{name}]" if ":" in name else name


def reached_at(sock: socket.socket) -> tuple[str, int]:
    """Host and port by which this machine reaches the socket."""
    name, port = sock.getsockname()[:2]
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here
    return anywhere.get(name, name), port


def is_loopback(sock: socket.socket) -> bool:
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback
