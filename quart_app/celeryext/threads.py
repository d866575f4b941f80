"""Threads beside those of the worker: for what blocks, and for loops where greenlets share one."""

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from celery import _state

T = TypeVar("T")

#: Greenlets share a thread and so cannot each run a loop: these threads run what is async.
ASYNC_AT_ONCE_ON_GEVENT = 32


class Daemons:
    """A few threads for what blocks; none keeps its process from ending, as an executor's do."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._forget()

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        if _is_patched():  # its sockets serve the thread of the greenlets alone
            loop, spawn = native().hub.loop, sys.modules["gevent"].spawn
            loop.run_callback_threadsafe(spawn, _fulfil, future, call)
            return future
        if self._owner != os.getpid():
            self._forget()  # no thread outlives a fork
        self._waiting.put((future, call))
        if self._started < self._size:
            self._started += 1
            threading.Thread(target=_serve, args=(self._waiting,), daemon=True).start()
        return future

    def _forget(self) -> None:
        self._owner, self._started = os.getpid(), 0
        self._waiting: SimpleQueue[Any] = SimpleQueue()


def is_green() -> bool:
    """Whether gevent's greenlets share this thread, where Python knows of one loop at a time."""
    return _is_patched() and bool(sys.modules["gevent"].get_hub().main_hub)


@functools.cache
def native() -> Any:
    """A pool of threads that a greenlet can wait for."""
    # By its name, since gevent need not be there.
    return importlib.import_module("gevent.threadpool").ThreadPool(ASYNC_AT_ONCE_ON_GEVENT)


def as_now(function: Callable[..., T]) -> Callable[..., T]:
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


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))
