"""What is async run to its end by a thread, and what blocks kept from a loop: for celeryext."""

import asyncio
import contextvars
import functools
import importlib
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from celery import _state

T = TypeVar("T")

#: Greenlets share a thread and so cannot each run a loop: these threads run what is async.
ASYNC_AT_ONCE_ON_GEVENT = 32


def wait(work: Coroutine[Any, Any, T], context: contextvars.Context) -> T:
    """Its result, by the loop of this thread, or of another where this one can run none."""
    whole = _Work(work, context)
    if _is_green():
        return _in_native_thread(whole)
    if not in_loop():
        return _thread.run(whole)
    with ThreadPoolExecutor(1) as other:
        return other.submit(_as_now(_thread.run), whole).result()


def in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not _is_green()  # the loop is another greenlet's


def close() -> None:
    """Closes the loop that this thread keeps."""
    _thread.close()


class Daemons:
    """A few threads for what blocks; none keeps its process from ending, as an executor's do."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._forget()

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        if _is_patched():  # its sockets serve the thread of the greenlets alone
            hub = _native_threads().hub
            hub.loop.run_callback_threadsafe(sys.modules["gevent"].spawn, _fulfil, future, call)
            return future
        if self._owner != os.getpid():
            self._forget()
        self._waiting.put((future, call))
        if self._started < self._size:
            self._started += 1
            threading.Thread(target=_serve, args=(self._waiting,), daemon=True).start()
        return future

    def _forget(self) -> None:
        self._owner, self._started = os.getpid(), 0
        self._waiting: SimpleQueue[Any] = SimpleQueue()


def _serve(waiting: "SimpleQueue[Any]") -> None:
    while True:
        _fulfil(*waiting.get())


def _fulfil(future: "Future[T]", call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)


def _in_native_thread(work: "_Work[T]") -> T:
    running = _native_threads().spawn(_as_now(_outcome), work)
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


@functools.cache
def _native_threads() -> Any:
    # By its name, since gevent need not be there.
    return importlib.import_module("gevent.threadpool").ThreadPool(ASYNC_AT_ONCE_ON_GEVENT)


def _is_green() -> bool:
    """Whether gevent's greenlets share this thread, where Python knows of one loop at a time."""
    return _is_patched() and bool(sys.modules["gevent"].get_hub().main_hub)


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _as_now(function: Callable[..., T]) -> Callable[..., T]:
    """The function for another thread, where `self.request` and `current_task` are these still."""
    task = _state.get_current_task()
    if task is None:
        return function
    request = task.request_stack.top

    def run(*args: Any) -> T:
        _state._task_stack.push(task)
        task.request_stack.push(request)
        try:
            return function(*args)
        finally:
            task.request_stack.pop()
            _state._task_stack.pop()

    return run


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
        try:
            return work.run(self.loop)
        finally:
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
