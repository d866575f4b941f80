"""Celery for Quart: applications keep apart, and every task has its own context."""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery
from celery import current_app as current_celery
from quart import Quart, current_app, g, has_app_context, request

from quart_app.celeryext import QuartCelery, RequestContextTask, in_app_context


def make(name: str = "one", **config: Any) -> tuple[Quart, Celery]:
    app = Quart(name)
    app.config.update({"CELERY_BROKER_URL": "memory://", "SECRET_KEY": "hidden"} | config)
    return app, QuartCelery(app).celery


def where() -> str:
    return current_app.name


async def fail_later() -> None:
    raise LookupError("later")


def fail_now() -> None:
    raise LookupError("now")


def do_nothing() -> None:
    pass


@pytest.fixture
def both() -> tuple[Quart, Celery]:
    return make()


def test_two_applications_in_one_process_keep_apart() -> None:
    (one, celery_one), (two, celery_two) = (
        make("one", CELERY_TIMEZONE="Asia/Shanghai"), make("two", CELERY_TIMEZONE="Europe/Berlin")
    )  # fmt: skip
    for celery in (celery_one, celery_two):
        celery.task(where, name="where")
        celery.finalize()
    assert (celery_one.tasks["where"](), celery_two.tasks["where"]()) == ("one", "two")
    assert in_app_context(one, celery_two.tasks["where"]) == "two"
    assert (str(celery_one.conf.timezone), str(celery_two.conf.timezone)) == (
        "Asia/Shanghai", "Europe/Berlin",
    )  # fmt: skip
    assert one.extensions["celery"] is celery_one
    assert two.extensions["celery"] is not current_celery._get_current_object()


def test_only_what_is_celerys_is_passed_on(both: tuple[Quart, Celery]) -> None:
    conf = both[1].conf
    assert conf.broker_url == "memory://"
    assert "hidden" not in repr(conf.table(with_defaults=True, censored=False))
    assert "secret_key" not in conf


def test_an_extension_may_be_told_how_to_build_celery() -> None:
    app = Quart("custom")
    extension = QuartCelery(create_celery_app=lambda app: Celery(f"of {app.name}"))
    extension.init_app(app)
    assert app.extensions["celery"].main == "of custom"


def test_the_context_is_there_in_both_kinds_of_tasks_and_gone_after(
    both: tuple[Quart, Celery],
) -> None:
    @both[1].task
    def plain() -> str:
        return current_app.name

    @both[1].task
    async def later() -> str:
        await asyncio.sleep(0)
        return current_app.name

    assert (plain(), later()) == ("one", "one")
    assert (plain.apply().get(), later.apply().get()) == ("one", "one")
    assert not has_app_context()


def test_a_direct_call_within_a_task_reuses_its_context(both: tuple[Quart, Celery]) -> None:
    @both[1].task
    def inner() -> int:
        return id(g._get_current_object())

    @both[1].task
    async def inner_later() -> int:
        return id(g._get_current_object())

    @both[1].task
    def outer() -> set[int]:
        return {id(g._get_current_object()), inner(), inner_later()}

    @both[1].task
    async def outer_later() -> set[int]:
        return {id(g._get_current_object()), inner(), await inner_later()}

    assert (len(outer()), len(outer_later())) == (1, 1)


def test_each_task_has_a_g_of_its_own(both: tuple[Quart, Celery]) -> None:
    @both[1].task
    def leave(value: int) -> list[str]:
        before = list(g)
        g.value = value
        return before

    assert [leave(value) for value in range(3)] == [[], [], []]


def test_tasks_in_threads_do_not_see_each_other(both: tuple[Quart, Celery]) -> None:
    @both[1].task
    async def mine(value: int) -> int:
        g.value = value
        await asyncio.sleep(0.001)
        return int(g.value)

    both[1].finalize()  # as a worker does: Celery's own first use of a task is not for many threads
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(mine, range(100))) == list(range(100))


def test_a_task_may_run_a_loop_of_its_own(both: tuple[Quart, Celery]) -> None:
    @both[1].task
    def run() -> str:
        async def name() -> str:
            return current_app.name

        return asyncio.run(name())

    assert (run(), run()) == ("one", "one")


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_reaches_the_teardown_functions(
    both: tuple[Quart, Celery], is_async: bool
) -> None:
    app, celery = both
    seen: list[BaseException | None] = []
    app.teardown_appcontext(seen.append)

    task = celery.task(fail_later if is_async else fail_now)
    with pytest.raises(LookupError) as raised:
        task()
    celery.task(do_nothing)()
    assert seen == [raised.value, None]


def test_what_a_task_leaves_running_ends_with_it(both: tuple[Quart, Celery]) -> None:
    ended: list[str] = []
    kept: list[Any] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(current_app.name)

    @both[1].task
    async def leave() -> None:
        kept.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)

    leave()
    assert ended == ["one"]


def test_a_task_broken_off_by_a_signal_does_not_go_on_in_the_next(
    both: tuple[Quart, Celery],
) -> None:
    went_on: list[int] = []

    @both[1].task
    async def broken_off() -> None:
        asyncio.get_running_loop().call_soon(stop)
        await asyncio.sleep(0.01)
        went_on.append(1)

    def stop() -> None:
        raise KeyboardInterrupt

    @both[1].task
    async def following() -> None:
        await asyncio.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    following()
    assert went_on == []


def test_a_forked_child_has_a_loop_of_its_own(both: tuple[Quart, Celery]) -> None:
    @both[1].task
    async def nap() -> bool:
        await asyncio.sleep(0.01)
        return True

    assert nap()
    child = os.fork()
    if child == 0:
        os._exit(0 if nap() else 1)
    assert nap()
    assert os.waitpid(child, 0)[1] == 0


def test_a_task_of_one_application_is_not_in_the_other() -> None:
    (_, one), (_, two) = make("one"), make("two")
    one.task(where, name="only_one")
    assert ("only_one" in one.tasks, "only_one" in two.tasks) == (True, False)


async def test_adelay_publishes_without_blocking_the_loop() -> None:
    celery = make(CELERY_TASK_DEFAULT_QUEUE="of this test")[1]
    result = await celery.task(where, name="where").adelay()
    with celery.connection_for_read() as connection:
        message = connection.SimpleQueue("of this test").get(timeout=5)
    assert message.headers["id"] == result.id


async def test_aapply_async_gives_up_at_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        celery = make(CELERY_BROKER_URL=url, CELERY_BROKER_TRANSPORT_OPTIONS={"socket_timeout": 2})[
            1
        ]
        with pytest.raises(TimeoutError):
            await celery.task(where, name="where").aapply_async(deadline=0.1)


def test_a_request_context_task_has_a_request_too() -> None:
    def look() -> tuple[str, str]:
        return request.path, current_app.name

    assert make()[1].task(look, name="look", base=RequestContextTask)() == ("/", "one")
