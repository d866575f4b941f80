"""Stopping a body that does not look whether it should: an exception raised in its thread."""

import ctypes
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Cancelled(BaseException):
    """Raised in a task that was cancelled; no Exception, so that none handles it by mistake."""


class Interrupt:
    """While its block runs, another thread may end that with Cancelled.

    In the main thread of a process a signal also ends a sleep or a call that waits; in others the
    exception comes with the next instruction of Python. For that, `wake` is called with the thread
    and has a loop that waits there go on.
    """

    _of_main: "Interrupt | None" = None

    def __init__(self, wake: Callable[[int], object]) -> None:
        self._thread, self._wake = threading.get_ident(), wake
        self._is_open = self._is_fired = False
        # Held while the block ends, and while it is decided whether it has. Cancelled may come in
        # either moment and leave it held: whoever's block it is gets on, and nobody fires any more.
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if self._by_signal:
            Interrupt._of_main = self
            signal.signal(signal.SIGUSR2, _raise)
        self._is_open = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Also to be called where Cancelled arrives: it may have come amid the block's end."""
        with self._lock:
            self._is_open = False
            if self._is_fired and not self._by_signal:
                _raise_in(ctypes.c_ulong(self._thread), None)  # what has not come yet comes no more

    def fire(self) -> None:
        """Called from another thread; does nothing once the block has ended."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._is_open:
                self._fire()
        finally:
            self._lock.release()

    def _fire(self) -> None:
        self._is_fired = True
        if self._by_signal:
            signal.pthread_kill(self._thread, signal.SIGUSR2)
        else:
            _raise_in(ctypes.c_ulong(self._thread), ctypes.py_object(Cancelled))
            self._wake(self._thread)

    @property
    def _by_signal(self) -> bool:
        is_main = self._thread == threading.main_thread().ident
        return is_main and hasattr(signal, "pthread_kill")


def _raise(_number: int, _frame: FrameType | None) -> None:
    of_main = Interrupt._of_main
    if of_main and of_main._is_open and of_main._is_fired:
        raise Cancelled
