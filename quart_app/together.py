"""Calls of one moment, answered together: many requests share what a transaction costs."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from quart import Quart
from sqlalchemy.exc import TimeoutError as NoAnswer

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Late(NoAnswer):
    """No answer came in time. If it `was_asked`, nobody knows what comes of it."""

    def __init__(self, was_asked: bool) -> None:
        super().__init__("no answer came in time")
        self.was_asked = was_asked


@dataclass(eq=False)
class _Call(Generic[Question, Answer]):
    question: Question
    answer: asyncio.Future[Answer]
    was_asked: bool = False


class Together(Generic[Question, Answer]):
    """While one round is being answered the next one gathers, so that a lone call waits for nobody.

    `answer` is given up to `most` questions in an application context of its own, and returns their
    answers in order; one that is an exception is raised by its own call, what `answer` itself
    raises by all. A call waits for `patience` seconds, those of the round before it included.
    """

    def __init__(
        self,
        app: Quart,
        answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | Exception]]],
        patience: float,
        most: int = 200,
    ) -> None:
        self._app = app
        self._answer = answer
        self._patience = patience
        self._most = most
        #: What waits for the next round, of each loop where rounds are under way.
        self._waiting: WeakKeyDictionary[
            asyncio.AbstractEventLoop, deque[_Call[Question, Answer]]
        ] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Answer:
        """Raises Late after `patience` seconds; what waits until then for its round is left out."""
        loop = asyncio.get_running_loop()
        call: _Call[Question, Answer] = _Call(question, loop.create_future())
        if loop in self._waiting:
            self._waiting[loop].append(call)
        else:
            self._waiting[loop] = deque([call])
            # Without the context of the call that happens to be the first.
            rounds = loop.create_task(self._rounds(loop), context=contextvars.Context())
            self._tasks.add(rounds)
            rounds.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(self._patience) as limit:
                return await call.answer
        except TimeoutError:
            if not limit.expired():  # it is the answer
                raise
            raise Late(call.was_asked) from None

    async def _rounds(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting[loop]
        try:
            while waiting:
                calls = [waiting.popleft() for _ in range(min(len(waiting), self._most))]
                # Who has gone before the round began asks for nothing any more.
                if there := [call for call in calls if not call.answer.done()]:
                    await self._round(there)
        finally:
            del self._waiting[loop]
            for call in waiting:
                call.answer.cancel()

    async def _round(self, calls: Sequence[_Call[Question, Answer]]) -> None:
        for call in calls:
            call.was_asked = True
        try:
            async with self._app.app_context():
                answers = await self._answer([call.question for call in calls])
        except Exception as error:
            answers = [error] * len(calls)
        except asyncio.CancelledError:
            for call in calls:
                call.answer.cancel()
            raise
        for call, answer in zip(calls, answers, strict=True):
            if call.answer.done():  # its caller has gone
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)
