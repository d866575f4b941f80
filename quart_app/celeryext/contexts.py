"""A context of the application around what is sync, as a worker calls it."""

import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from quart import Quart, current_app, has_app_context, has_request_context, signals
from quart.ctx import AppContext, RequestContext

from . import loops

T = TypeVar("T")
_Run = Callable[[Coroutine[Any, Any, None], contextvars.Context], None]


def in_app_context(app: Quart, body: Callable[[], T]) -> T:
    """Calls a sync `body` in a context of `app`, outside any loop: it may run one itself."""
    if has_app_context() and current_app == app:
        return body()
    return _within(app.app_context(), body, _at_once if _is_quiet(app) else loops.wait)


def in_request_context(app: Quart, body: Callable[[], T]) -> T:
    """As in_app_context, with a `GET /` and the functions that run before and after a request."""
    if has_request_context() and current_app == app:
        return body()
    return _within(app.test_request_context("/"), partial(_as_a_request, app, body), loops.wait)


def _as_a_request(app: Quart, body: Callable[[], T]) -> T:
    loops.wait(app.preprocess_request(), contextvars.copy_context())
    result = body()
    loops.wait(app.process_response(app.response_class()), contextvars.copy_context())
    return result


def _is_quiet(app: Quart) -> bool:
    """Whether pushing and popping calls nothing that would want a loop."""
    listening = (
        signals.appcontext_pushed.receivers,
        signals.appcontext_tearing_down.receivers,
        signals.appcontext_popped.receivers,
    )
    return not (app.teardown_appcontext_funcs or any(listening))


def _at_once(work: Coroutine[Any, Any, None], context: contextvars.Context) -> None:
    """Runs to its end what never waits, for a tenth of what a loop costs."""
    try:
        context.run(work.send, None)
    except StopIteration:
        return
    raise RuntimeError("a context that calls nothing waited for something")


def _within(pushed: AppContext | RequestContext, body: Callable[[], T], run: _Run) -> T:
    context = contextvars.copy_context()
    run(pushed.push(), context)
    try:
        result = context.run(body)
    except BaseException as error:
        run(pushed.pop(error), context)
        raise
    run(pushed.pop(None), context)
    return result
