"""The loop that each thread keeps, and what is async run to its end by it."""

import asyncio
import contextvars
import os
import threading
import types
import weakref
from collections.abc import Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from . import threads

T = TypeVar("T")

#: By the thread that they run in.
_running: dict[int, asyncio.AbstractEventLoop] = {}


def wait(work: Coroutine[Any, Any, T], context: contextvars.Context) -> T:
    """Its result, by the loop of this thread, or of another where this one can run none."""
    whole = _Work(work, context)
    if threads.is_green():
        return _in_native_thread(whole)
    if not in_loop():
        return _thread.run(whole)
    with ThreadPoolExecutor(1) as other:
        return other.submit(threads.as_now(_thread.run), whole).result()


def in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not threads.is_green()  # the loop is another greenlet's


def wake(thread: int) -> None:
    """Has a loop that waits in this thread go on: what was raised there would else wait as well."""
    if loop := _running.get(thread):
        with suppress(RuntimeError):  # it was closed meanwhile
            loop.call_soon_threadsafe(int)


def close() -> None:
    """Closes the loop that this thread keeps."""
    _thread.close()


def _in_native_thread(work: "_Work[T]") -> T:
    running = threads.native().spawn(threads.as_now(_outcome), work)
    try:
        result, error = running.get()
    except BaseException as broke_in:  # gevent's time limit
        work.break_in(broke_in)
        raise
    if error is not None:
        raise error
    return result


def _outcome(work: "_Work[T]") -> Any:
    """The result and the error, which gevent would print."""
    try:
        return _thread.run(work), None
    except BaseException as error:
        return None, error


class _Work(Generic[T]):
    """A coroutine on its way; what breaks in from outside is raised where it waits."""

    def __init__(self, work: Coroutine[Any, Any, T], context: contextvars.Context) -> None:
        self._work, self._context = work, context
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, loop: asyncio.AbstractEventLoop) -> T:
        self._loop = loop
        self._task = loop.create_task(self._awaited(), context=self._context)
        try:
            return loop.run_until_complete(self._task)
        except BaseException as error:
            if self._task.done():
                raise
            self._cancel(error)
            return loop.run_until_complete(self._task)

    def break_in(self, error: BaseException) -> None:
        """From another thread; does nothing once it has ended."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._cancel, error)

    def _cancel(self, error: BaseException) -> None:
        self._error = error
        self._task.cancel()

    async def _awaited(self) -> T:
        return await self._steps()

    @types.coroutine
    def _steps(self) -> Generator[Any, Any, T]:
        go_on, given = self._work.send, None
        while True:
            try:
                waits_for = go_on(given)
            except StopIteration as end:
                return end.value
            try:
                go_on, given = self._work.send, (yield waits_for)
            except BaseException as error:
                go_on, given = self._work.throw, self._instead_of(error)

    def _instead_of(self, error: BaseException) -> BaseException:
        broke_in, self._error = self._error, None
        if broke_in is None:
            return error
        self._task.uncancel()
        return broke_in


class _Loops(dict[int, asyncio.AbstractEventLoop]):
    """By process, since a forked child shares the file descriptors of its parent's loop."""


class _Thread(threading.local):
    """The event loop of one worker thread, kept from task to task: making one costs more."""

    def __init__(self) -> None:
        self._loops = _Loops()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loops.get(os.getpid())
        if loop is None:
            loop = self._loops[os.getpid()] = asyncio.new_event_loop()
            weakref.finalize(self._loops, _close, loop, os.getpid())  # with its thread, or at exit
        return loop

    def run(self, work: _Work[T]) -> T:
        _running[threading.get_ident()] = self.loop
        try:
            return work.run(self.loop)
        finally:
            _running.pop(threading.get_ident(), None)
            self._end_rest()

    def close(self) -> None:
        if loop := self._loops.pop(os.getpid(), None):
            loop.close()

    def _end_rest(self) -> None:
        """What was started and never awaited, or broken off by a time limit, ends here."""
        if rest := asyncio.all_tasks(self.loop):
            for task in rest:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))


def _close(loop: asyncio.AbstractEventLoop, owner: int) -> None:
    if owner == os.getpid():
        loop.close()


_thread = _Thread()
