"""Calls of one moment, answered together: many requests share what a transaction costs."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from quart import Quart

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """While one round is being answered the next one gathers, so that a lone call waits for nobody.

    `answer` is given up to `most` questions in an application context of its own, and returns their
    answers in order; one that is an exception is raised by its own call, what `answer` itself
    raises by all.
    """

    def __init__(
        self,
        app: Quart,
        answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | Exception]]],
        most: int = 200,
    ) -> None:
        self._app = app
        self._answer = answer
        self._most = most
        #: What waits for the next round, of each loop where rounds are under way.
        self._waiting: WeakKeyDictionary[
            asyncio.AbstractEventLoop, deque[tuple[Question, asyncio.Future[Answer]]]
        ] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Answer:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if loop in self._waiting:
            self._waiting[loop].append((question, answer))
        else:
            self._waiting[loop] = deque([(question, answer)])
            # Without the context of the call that happens to be the first.
            rounds = loop.create_task(self._rounds(loop), context=contextvars.Context())
            self._tasks.add(rounds)
            rounds.add_done_callback(self._tasks.discard)
        return await answer

    async def _rounds(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting[loop]
        try:
            while waiting:
                calls = [waiting.popleft() for _ in range(min(len(waiting), self._most))]
                # Who has gone before the round began asks for nothing any more.
                if there := [call for call in calls if not call[1].done()]:
                    await self._round(there)
        finally:
            del self._waiting[loop]
            for _, answer in waiting:
                answer.cancel()

    async def _round(self, calls: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            async with self._app.app_context():
                answers = await self._answer([question for question, _ in calls])
        except Exception as error:
            answers = [error] * len(calls)
        except asyncio.CancelledError:
            for _, waiting in calls:
                waiting.cancel()
            raise
        for (_, waiting), answer in zip(calls, answers, strict=True):
            if waiting.done():  # its caller has gone
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
