"""Celery for Quart: one Celery application per Quart application, its context in every task.

It imports Quart and Celery alone, and nothing of the application that it is part of.
"""

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from celery import Celery, Task, current_task, signals
from celery.app.defaults import _TO_NEW_KEY, SETTING_KEYS
from celery.result import AsyncResult
from quart import Quart, current_app

from . import loops
from .contexts import in_app_context, in_request_context
from .threads import Daemons

__all__ = [
    "AppContextTask",
    "OwnCelery",
    "QuartCelery",
    "RequestContextTask",
    "create_celery_app",
    "in_app_context",
    "publish",
]

T = TypeVar("T")

#: What publishes for running loops; a broker that does not answer holds no more than these.
_publishers = Daemons(4)


def create_celery_app(app: Quart) -> Celery:
    """A Celery application of its own, given the `CELERY_*` keys of `app.config` and no other."""
    celery = OwnCelery(app.name, task_cls=AppContextTask, set_as_current=False)
    celery.quart_app = app
    # As namespace="CELERY" reads them, which warns of each name that Celery 3 had as well.
    settings = {name: value for name, value in app.config.items() if name.startswith("CELERY_")}
    celery.config_from_object({_celerys_name(name): value for name, value in settings.items()})
    signals.after_setup_task_logger.connect(_let_task_lines_through)
    signals.worker_process_shutdown.connect(_close_loop)
    return celery


class QuartCelery:
    """The extension; `create_celery_app(app)` may be given to build the Celery application.

    The Celery application is at `ext.celery` and at `app.extensions["celery"]`.
    """

    celery: Celery
    create_celery_app: Callable[[Quart], Celery] = staticmethod(create_celery_app)

    def __init__(
        self,
        app: Quart | None = None,
        create_celery_app: Callable[[Quart], Celery] | None = None,
    ) -> None:
        if create_celery_app is not None:
            self.create_celery_app = create_celery_app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        self.celery = app.extensions["celery"] = self.create_celery_app(app)
        self.celery.quart_app = app


class OwnCelery(Celery):
    """Keeps its tasks to itself, where Celery would register them with every application."""

    def task(self, *args: Any, **options: Any) -> Any:
        return super().task(*args, **{"shared": False} | options)


class AppContextTask(Task):
    """Runs the task, `def` or `async def`, in the application's context; one there is reused."""

    abstract = True

    def __init_subclass__(cls, **options: Any) -> None:
        # Before Celery wraps it for autoretry_for, which would look at a coroutine alone.
        super().__init_subclass__(**options)
        run = vars(cls).get("run")
        if isinstance(run, staticmethod):
            cls.run = staticmethod(_whole(run.__func__))
        elif run is not None:
            cls.run = _whole(run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return in_app_context(self._owner, partial(self.perform, *args, **kwargs))

    def perform(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the body to its end, or gives it to be awaited; called with the context pushed."""
        return super().__call__(*args, **kwargs)

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """As `delay`, for a running loop; see `aapply_async`."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Any = None, kwargs: Any = None, *, deadline: float = 5.0, **options: Any
    ) -> AsyncResult:
        """As `apply_async`, without blocking the loop; see `publish`."""
        return await publish(partial(self.apply_async, args, kwargs, **options), deadline)

    @property
    def _owner(self) -> Quart:
        # A shared task that is called by its name in a module belongs to no application of ours.
        owner: Quart = getattr(self.app, "quart_app", current_app)
        return owner


class RequestContextTask(AppContextTask):
    """As AppContextTask, but as a `GET /` would run: with a request, before and after functions."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return in_request_context(self._owner, partial(self.perform, *args, **kwargs))


async def publish(call: Callable[[], T], deadline: float = 5.0) -> T:
    """What `call` returns, a canvas' `apply_async` say, without blocking the loop.

    Raises TimeoutError after `deadline` seconds (the message may yet arrive), or what the
    broker's library raises.
    """
    publishing = _publishers.submit(partial(contextvars.copy_context().run, call))
    return await asyncio.wait_for(asyncio.wrap_future(publishing), deadline)


def _celerys_name(name: str) -> str:
    """CELERY_TASK_ALWAYS_EAGER is task_always_eager, and so is the old CELERY_ALWAYS_EAGER."""
    new = name.removeprefix("CELERY_").lower()
    return new if new in SETTING_KEYS else _TO_NEW_KEY.get(name, new)


def _let_task_lines_through(logger: logging.Logger, **_: Any) -> None:
    """Every handler of the root logger gets the lines of tasks, but for Celery's: twice there."""
    targets = {_target(handler) for handler in logger.handlers}
    for handler in logger.handlers:
        handler.addFilter(_mark)
    for handler in logging.getLogger().handlers:
        if _target(handler) in targets:
            handler.addFilter(_is_unmarked)
    logger.propagate = True


def _target(handler: logging.Handler) -> Any:
    return getattr(handler, "baseFilename", None) or getattr(handler, "stream", handler)


def _mark(record: logging.LogRecord) -> bool:
    record.is_of_a_task = True
    return True


def _is_unmarked(record: logging.LogRecord) -> bool:
    return not hasattr(record, "is_of_a_task")


def _close_loop(**_: Any) -> None:
    loops.close()  # a child of prefork ends without what Python does at exit


def _whole(function: Callable[..., Any]) -> Callable[..., Any]:
    """As the function, with what is async run to its end unless its caller can await it."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if asyncio.iscoroutine(result) and not (
            loops.in_loop() and current_task.request.called_directly
        ):
            return loops.wait(result, contextvars.copy_context())
        return result

    return run
