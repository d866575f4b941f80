"""When tokens were last used: noted by requests, and written down behind their backs."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection

from quart import Quart, current_app

from quart_app import db, tokens
from quart_app.seldom import Seldom
from quart_app.serving import while_serving
from quart_app.web import live

_WRITE_EVERY = 2.0

logger = logging.getLogger(__name__)


def init_app(app: Quart) -> None:
    app.extensions["uses"] = uses = Uses(app.extensions["db"], app.extensions["live"])

    @while_serving(app)
    async def serving() -> AsyncGenerator[None, None]:
        writing = asyncio.create_task(uses.write_for_ever())
        yield
        await live.end([writing])


def note(token_id: str) -> None:
    """That a token was used just now, in the current application."""
    uses: Uses = current_app.extensions["uses"]
    uses.noted.add(token_id)


class Uses:
    """Of this process; each token is written at most once a minute, however often it is used."""

    def __init__(self, database: db.Database, hub: live.Hub) -> None:
        self._database, self._hub = database, hub
        self.noted: set[str] = set()
        #: When each was last written, by our own clock.
        self._written: dict[str, float] = {}

    async def write_for_ever(self) -> None:
        warnings = Seldom()
        while True:
            await asyncio.sleep(_WRITE_EVERY)
            try:
                await self._write()
            except Exception as error:  # they will be used again
                warnings.warn(logger, "When tokens were used is not written down", error)

    async def _write(self) -> None:
        now = time.monotonic()
        recent = now - tokens.USE_SECONDS
        self._written = {id_: at for id_, at in self._written.items() if at > recent}
        used = self.noted | self._hub.token_ids  # an open socket is in use all the while
        self.noted.clear()
        if fresh := used - self._written.keys():
            # In a thread, which holds SQLite's write lock for no longer than the statement takes.
            await asyncio.to_thread(self._note, fresh)
            self._written |= dict.fromkeys(fresh, now)

    def _note(self, fresh: Collection[str]) -> None:
        with self._database.session() as session:
            tokens.note_use(session, fresh)
