"""Calls of one moment are answered together, and each gets what is its own."""

import asyncio
from collections.abc import Sequence

import pytest
from quart import Quart, current_app

from quart_app.together import Late, Together


class Rounds:
    """Answers with the double, a round at a time and only when it is let."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.begun = asyncio.Event()

    async def answer(self, asked: Sequence[int]) -> Sequence[int | Exception]:
        self.seen.append(list(asked))
        self.begun.set()
        await self.may_answer.wait()
        return [ValueError(number) if number < 0 else number * 2 for number in asked]


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


@pytest.fixture
def together(rounds: Rounds) -> Together[int, int]:
    return Together(Quart(__name__), rounds.answer, 20, most=3)


async def test_what_comes_during_a_round_shares_the_next_one(
    together: Together[int, int], rounds: Rounds
) -> None:
    first = asyncio.create_task(together.ask(1))
    await rounds.begun.wait()
    others = [asyncio.create_task(together.ask(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    rounds.may_answer.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6]
    assert rounds.seen == [[1], [2, 3]]


async def test_a_round_takes_no_more_than_it_may(
    together: Together[int, int], rounds: Rounds
) -> None:
    rounds.may_answer.set()
    numbers = range(1, 9)
    assert await asyncio.gather(*map(together.ask, numbers)) == [2 * number for number in numbers]
    assert rounds.seen == [[1, 2, 3], [4, 5, 6], [7, 8]]


async def test_what_is_wrong_with_one_concerns_no_other(
    together: Together[int, int], rounds: Rounds
) -> None:
    rounds.may_answer.set()
    asked = asyncio.gather(*map(together.ask, (1, -2, 3)), return_exceptions=True)
    one, other, third = await asked
    assert (one, third) == (2, 6)
    assert isinstance(other, ValueError)


async def test_what_fails_as_a_whole_fails_for_each_and_the_next_round_goes_on() -> None:
    is_away = True

    async def answer(asked: Sequence[int]) -> Sequence[int | Exception]:
        if is_away:
            raise ConnectionError
        return list(asked)

    together: Together[int, int] = Together(Quart(__name__), answer, 20)
    failed = await asyncio.gather(*map(together.ask, (1, 2)), return_exceptions=True)
    assert [type(error) for error in failed] == [ConnectionError] * 2
    is_away = False
    assert await together.ask(3) == 3


async def test_a_caller_that_goes_away_takes_nobody_along(
    together: Together[int, int], rounds: Rounds
) -> None:
    staying = asyncio.create_task(together.ask(1))
    leaving = asyncio.create_task(together.ask(2))
    await rounds.begun.wait()
    leaving.cancel()
    rounds.may_answer.set()
    assert await staying == 2
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_who_has_gone_before_its_round_began_is_not_asked_for(
    together: Together[int, int], rounds: Rounds
) -> None:
    staying = asyncio.create_task(together.ask(1))
    await rounds.begun.wait()
    leaving = asyncio.create_task(together.ask(2))
    await asyncio.sleep(0)
    leaving.cancel()
    rounds.may_answer.set()
    assert await staying == 2
    assert await together.ask(3) == 6
    assert rounds.seen == [[1], [3]]


async def test_a_call_waits_no_longer_than_it_may_whatever_the_rounds_do(rounds: Rounds) -> None:
    together: Together[int, int] = Together(Quart(__name__), rounds.answer, 2)
    first = asyncio.create_task(together.ask(1))
    await rounds.begun.wait()
    with pytest.raises(Late) as left_out:
        await together.ask(2)
    with pytest.raises(Late) as asked:
        await first
    assert (asked.value.was_asked, left_out.value.was_asked) == (True, False)
    rounds.may_answer.set()
    assert await together.ask(3) == 6
    assert rounds.seen == [[1], [3]]


async def test_the_round_runs_in_the_application_and_in_nobody_s_request() -> None:
    app = Quart(__name__)

    async def answer(asked: Sequence[str]) -> Sequence[str]:
        return [f"{name} {current_app.name}" for name in asked]

    together: Together[str, str] = Together(app, answer, 20)
    assert await together.ask("in") == f"in {app.name}"


def test_each_loop_has_rounds_of_its_own(recwarn: pytest.WarningsRecorder) -> None:
    async def answer(asked: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        return list(asked)

    together: Together[int, int] = Together(Quart(__name__), answer, 20)
    assert [asyncio.run(together.ask(number)) for number in range(3)] == [0, 1, 2]


async def test_a_loop_that_ends_leaves_nobody_waiting(
    together: Together[int, int], rounds: Rounds
) -> None:
    waiting = [asyncio.create_task(together.ask(number)) for number in range(5)]
    await rounds.begun.wait()
    for task in together._tasks:
        task.cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [asyncio.CancelledError] * 5
