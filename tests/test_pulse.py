"""What the main process of a worker writes down: in order, and none keeps the others waiting."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from quart_app.nodes import Pulse
from tests.conftest import Place
from tests.real import until


@pytest.fixture
def pulse(clean: Place) -> Iterator[Pulse]:
    pulse = Pulse(clean.app(), lambda session: None)
    pulse.start()
    yield pulse
    pulse.stop()


def test_what_cannot_be_written_down_keeps_nothing_else_waiting(
    pulse: Pulse, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(_session: Any) -> None:
        raise KeyError("no sense")

    done: list[int] = []
    assert pulse.ask(wrong).wait(10)
    assert pulse.ask(lambda session: done.append(session.scalar(text("SELECT 7")))).wait(10)
    assert done == [7]
    assert "KeyError: 'no sense'" in caplog.text


def test_what_the_database_does_not_take_is_asked_of_it_again(pulse: Pulse) -> None:
    tried: list[int] = []

    def at_first_in_vain(session: Any) -> None:
        tried.append(1)
        if len(tried) < 3:
            raise OperationalError("SELECT", {}, Exception("away"))
        session.execute(text("SELECT 1"))

    assert pulse.ask(at_first_in_vain).wait(10)
    until(lambda: len(tried) == 3)
