"""A disk that can be full at will: a tmpfs in a mount namespace that ends with this process."""

import ctypes
import os
from pathlib import Path

_NEW_NAMESPACE = 0x00020000
_RECURSIVE, _PRIVATE, _REMOUNT, _DETACH = 0x4000, 0x40000, 0x20, 2
_ROOM = 4 * 1024**3


class NotPermitted(Exception):
    """Only root, or who may do as root, mounts anything."""


class Disk:
    """Mounted at `folder` for this process and those it starts, until `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _call("unshare", _NEW_NAMESPACE)
        _call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
        self._mount(0, _ROOM)

    def fill(self) -> None:
        """From now on there is room for nothing more."""
        for spare in (0, 1, 4, 16, 64):  # pages that are taken between the question and the answer
            stat = os.statvfs(self._folder)
            used = (stat.f_blocks - stat.f_bfree + spare) * stat.f_frsize
            try:
                return self._mount(_REMOUNT, used)
            except NotPermitted:
                continue
        return None

    def free(self) -> None:
        self._mount(_REMOUNT, _ROOM)

    def close(self) -> None:
        _call("umount2", os.fsencode(self._folder), _DETACH)

    def _mount(self, flags: int, size: int) -> None:
        folder, options = os.fsencode(self._folder), f"size={size}".encode()
        _call("mount", b"tmpfs", folder, b"tmpfs", flags, options)


def _call(name: str, *words: bytes | int | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*words):
        raise NotPermitted(f"{name}: {os.strerror(ctypes.get_errno())}")
