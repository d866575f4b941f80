"""What an application does while it serves, begun anew each time that it is started."""

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from quart import Quart

Serving = Callable[[], AsyncGenerator[None, None]]


def while_serving(app: Quart) -> Callable[[Serving], Serving]:
    """As `app.while_serving`, of which Quart makes one generator for good: a second start fails.

    What comes after the `yield` runs before `after_serving`, which closes the database.
    """

    def register(serving: Serving) -> Serving:
        anew = _Anew(serving)
        app.before_serving(anew.end)
        app.while_serving(lambda: anew)  # type: ignore[type-var]  # all that it asks of one
        return serving

    return register


class _Anew:
    """Asked once at the start and once at the end, as Quart does."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._begun: AsyncGenerator[None, None] | None = None

    async def end(self) -> None:
        """What an earlier start began, if another part made that fail."""
        if self._begun:
            with suppress(StopAsyncIteration):
                await anext(self)

    async def __anext__(self) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            begun = self._serving()
            await anext(begun)
            self._begun = begun
        else:
            await anext(begun)
