"""What Flask-CeleryExt documents of itself and tests, as it is here."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, current_task
from celery import current_app as current_celery
from celery.utils.log import get_task_logger
from quart import Quart, Response, current_app, g, has_request_context, request

from quart_app.celeryext import AppContextTask, QuartCelery, RequestContextTask, create_celery_app
from tests import real

EAGER = {
    "CELERY_TASK_ALWAYS_EAGER": True,
    "CELERY_TASK_EAGER_PROPAGATES": True,
    "CELERY_RESULT_BACKEND": "cache",
    "CELERY_CACHE_BACKEND": "memory",
}


def make(**config: Any) -> Quart:
    app = Quart("shop")
    app.config.update(EAGER | config)
    return app


def app_name() -> str:
    return current_app.name


def method() -> str:
    return request.method


def user() -> str:
    return str(g.user)


async def user_later() -> str:
    return str(g.user)


def context() -> int:
    return id(g._get_current_object())


def task_name() -> str:
    return str(current_task.name)


def test_the_extension_takes_the_app_at_once() -> None:
    assert isinstance(QuartCelery(make()).celery, Celery)


def test_the_extension_takes_the_app_later() -> None:
    extension = QuartCelery()
    assert not hasattr(extension, "celery")
    extension.init_app(app := make())
    assert app.extensions["celery"] is extension.celery


def test_the_configuration_comes_from_the_app() -> None:
    conf = QuartCelery(make()).celery.conf
    assert (conf.task_always_eager, conf.task_eager_propagates) == (True, True)
    assert (conf.result_backend, conf.cache_backend) == ("cache", "memory")


def test_the_names_of_celery_3_are_understood() -> None:
    old = {"CELERY_ALWAYS_EAGER": True, "CELERY_EAGER_PROPAGATES_EXCEPTIONS": True}
    app = Quart("shop")
    app.config.update(old)
    before = dict(app.config)
    conf = create_celery_app(app).conf
    assert (conf.task_always_eager, conf.task_eager_propagates) == (True, True)
    assert app.config == before


def test_a_key_without_its_prefix_is_not_passed_on() -> None:
    assert create_celery_app(make(BROKER_URL="memory://")).conf.broker_url is None


def test_a_task_runs_in_an_app_context() -> None:
    assert create_celery_app(make()).task(app_name, name="app_name").delay().result == "shop"


def test_a_request_context_task_runs_in_a_request_context() -> None:
    celery = create_celery_app(make())
    task = celery.task(method, name="method", base=RequestContextTask)
    assert task.delay().result == "GET"
    assert celery.task(has_request_context, name="has").delay().result is False


def test_an_app_context_task_has_no_request() -> None:
    with pytest.raises(RuntimeError, match="Not within a request context"):
        create_celery_app(make()).task(method, name="method").delay()


@pytest.mark.parametrize("body", [user, user_later])
def test_a_request_context_task_runs_before_and_after_request(body: Any) -> None:
    app, seen = make(), []
    app.before_request(lambda: setattr(g, "user", "amy"))

    @app.after_request
    async def after(response: Response) -> Response:
        seen.append(g.user)
        return response

    task = create_celery_app(app).task(body, name="user", base=RequestContextTask)
    assert (task.delay().result, seen) == ("amy", ["amy"])


def test_a_request_context_task_within_another_shares_its_request() -> None:
    celery = create_celery_app(make())
    inner = celery.task(context, name="inner", base=RequestContextTask)

    @celery.task(base=RequestContextTask)
    def outer() -> set[int]:
        return {context(), inner.delay().result, inner()}

    assert len(outer.delay().result) == 1


def test_the_factory_of_the_celery_application_can_be_called_alone() -> None:
    app = make()
    assert create_celery_app(app).quart_app is app


def test_another_factory_may_be_given() -> None:
    def factory(app: Quart) -> Celery:
        celery = Celery(app.import_name, set_as_current=False)
        celery.Task = AppContextTask
        celery.conf.task_always_eager = True
        return celery

    celery = QuartCelery(make(), create_celery_app=factory).celery
    assert celery.task(app_name, name="app_name").delay().result == "shop"


def test_a_task_run_eagerly_knows_its_name() -> None:
    task = create_celery_app(make()).task(task_name, name="shop.name")
    assert task.delay().result == "shop.name"


def test_an_eager_task_within_a_task_makes_no_new_context() -> None:
    celery = create_celery_app(make())
    inner = celery.task(context, name="inner")

    @celery.task
    def outer() -> set[int]:
        return {context(), inner.delay().result, inner()}

    assert len(outer.delay().result) == 1


async def test_an_eager_async_task_in_a_loop_gives_its_result() -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return f"{current_app.name} {current_task.name}"

    task = create_celery_app(make()).task(later, name="later")
    assert (task.delay().result, (await task.adelay()).result) == ("shop later", "shop later")


# In a process of its own: it would be in the applications of all other tests, too.
SHARED = """
from celery import shared_task
from quart import Quart, current_app
from quart_app.celeryext import create_celery_app

both = [create_celery_app(Quart(name)) for name in ("one", "two")]


@shared_task(name="shared")
def name():
    return current_app.name


print(*(celery.tasks["shared"]() for celery in both))
"""


def test_a_shared_task_is_in_every_application_and_runs_in_the_context_of_each() -> None:
    assert real.script(SHARED).stdout == "one two\n"


@pytest.fixture
def task_loggers() -> Iterator[None]:
    """Celery's are left as they were."""
    loggers = [logging.getLogger(name) for name in ("", "celery.task")]
    before = [(each.handlers[:], each.propagate, each.level) for each in loggers]
    yield
    for each, (handlers, propagate, level) in zip(loggers, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


@pytest.mark.usefixtures("task_loggers")
def test_task_loggers_propagate() -> None:
    create_celery_app(make()).log.setup_task_loggers()
    logger: logging.Logger | None = get_task_logger(__name__)
    while logger and logger.parent:
        assert logger.propagate
        logger = logger.parent


def test_the_current_celery_application_stays_what_it_was() -> None:
    before = current_celery._get_current_object()
    celery = create_celery_app(make())
    assert current_celery._get_current_object() is before is not celery
