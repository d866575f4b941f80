"""Celery for Quart: one Celery application per Quart application, its context in every task."""

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from celery import Celery, Task
from celery.result import AsyncResult
from quart import Quart, current_app, has_app_context, has_request_context
from quart import signals as quart_signals
from quart.ctx import AppContext, RequestContext

T = TypeVar("T")

#: What publishes for a running loop; a broker that does not answer holds no more than these.
_publishers = ThreadPoolExecutor(4, "celery-publisher")


class QuartCelery:
    """The extension; `create_celery_app(app)` may be given to build the Celery application.

    The Celery application is at `ext.celery` and at `app.extensions["celery"]`.
    """

    celery: Celery

    def __init__(
        self,
        app: Quart | None = None,
        create_celery_app: Callable[[Quart], Celery] | None = None,
    ) -> None:
        self._create = create_celery_app or globals()["create_celery_app"]
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        self.celery = self._create(app)
        app.extensions["celery"] = self.celery


def create_celery_app(app: Quart) -> Celery:
    """A Celery application of its own, given the `CELERY_*` keys of `app.config` and no other."""
    celery = OwnCelery(app.name, task_cls=AppContextTask, set_as_current=False)
    celery.quart_app = app
    # As namespace="CELERY" reads them, which warns of each name that Celery 3 had as well.
    keys = {
        name.removeprefix("CELERY_").lower(): value
        for name, value in app.config.items()
        if name.startswith("CELERY_")
    }
    celery.config_from_object(keys)
    return celery


class OwnCelery(Celery):
    """Keeps its tasks to itself, where Celery would register them with every application."""

    def task(self, *args: Any, **options: Any) -> Any:
        return super().task(*args, **{"shared": False} | options)


class AppContextTask(Task):
    """Runs the task, `def` or `async def`, in the application's context; one there is reused."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return in_app_context(self._owner, partial(self.perform, *args, **kwargs))

    def perform(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the body to its end, or gives it to be awaited; called with the context pushed."""
        result = super().__call__(*args, **kwargs)
        if asyncio.iscoroutine(result) and not _in_loop():
            return _thread.wait(result, contextvars.copy_context())
        return result

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """As `delay`, for a running loop; see `aapply_async`."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Any = None, kwargs: Any = None, *, deadline: float = 5.0, **options: Any
    ) -> AsyncResult:
        """As `apply_async`, without blocking the loop.

        Raises TimeoutError after `deadline` seconds (the message may yet arrive), or what the
        broker's library raises.
        """
        publish = partial(self.apply_async, args, kwargs, **options)
        context, loop = contextvars.copy_context(), asyncio.get_running_loop()
        publishing = loop.run_in_executor(_publishers, context.run, publish)
        return await asyncio.wait_for(publishing, deadline)

    @property
    def _owner(self) -> Quart:
        # A shared task that is called by its name in a module belongs to no application of ours.
        owner: Quart = getattr(self.app, "quart_app", current_app)
        return owner


class RequestContextTask(AppContextTask):
    """As AppContextTask, with a request context too: that of an empty `GET /`."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        body = partial(self.perform, *args, **kwargs)
        if has_request_context():
            return in_app_context(self._owner, body)
        return _within(self._owner.test_request_context("/"), body)


def in_app_context(app: Quart, body: Callable[[], T]) -> T:
    """Calls a sync `body` in a context of `app`, outside any loop: it may run one itself."""
    if has_app_context() and current_app == app:
        return body()
    if _is_quiet(app):
        return contextvars.copy_context().run(_within_quiet, app.app_context(), body)
    return _within(app.app_context(), body)


def _is_quiet(app: Quart) -> bool:
    """Whether pushing and popping calls nothing that would want a loop."""
    listening = (
        quart_signals.appcontext_pushed.receivers,
        quart_signals.appcontext_tearing_down.receivers,
        quart_signals.appcontext_popped.receivers,
    )
    return not (app.teardown_appcontext_funcs or any(listening))


def _within_quiet(app_context: AppContext, body: Callable[[], T]) -> T:
    _step(app_context.push())
    try:
        return body()
    finally:
        _step(app_context.pop(None))


def _step(work: Coroutine[Any, Any, None]) -> None:
    """Runs to its end what never waits, for a tenth of what a loop costs."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("a context that calls nothing waited for something")


def _within(pushed: AppContext | RequestContext, body: Callable[[], T]) -> T:
    context = contextvars.copy_context()
    _thread.wait(pushed.push(), context)
    error: BaseException | None = None
    try:
        return context.run(body)
    except BaseException as raised:
        error = raised
        raise
    finally:
        _thread.wait(pushed.pop(error), context)


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Loops(dict[int, asyncio.AbstractEventLoop]):
    """By process, since a forked child shares the file descriptors of its parent's loop."""

    def __del__(self) -> None:
        if loop := self.get(os.getpid()):
            loop.close()  # its thread has ended


class _Thread(threading.local):
    """The event loop of one worker thread, kept from task to task: making one costs more."""

    def __init__(self) -> None:
        self._loops = _Loops()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loops.get(os.getpid())
        if loop is None:
            loop = self._loops[os.getpid()] = asyncio.new_event_loop()
        return loop

    def wait(self, work: Coroutine[Any, Any, T], context: contextvars.Context) -> T:
        try:
            return self.loop.run_until_complete(self.loop.create_task(work, context=context))
        finally:
            self._end_rest()

    def _end_rest(self) -> None:
        """What was started and never awaited, or broken off by a time limit, ends here."""
        if rest := asyncio.all_tasks(self.loop):
            for task in rest:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))


_thread = _Thread()
