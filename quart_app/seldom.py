"""What happens again and again, told once in a while: it would else fill the log."""

import logging
import time

from sqlalchemy.exc import DBAPIError

from quart_app.db import reason


class Seldom:
    """Lets each thing pass once in so many seconds."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._again_at: dict[str, float] = {}

    def passes(self, what: str = "") -> bool:
        now = time.monotonic()
        # Without those of long ago: strangers may make up names without end.
        self._again_at = {name: at for name, at in self._again_at.items() if at > now}
        if what in self._again_at:
            return False
        self._again_at[what] = now + self._seconds
        return True

    def warn(self, logger: logging.Logger, what: str, error: Exception) -> None:
        """Logs that it failed, and why."""
        if self.passes(what):
            logger.warning("%s: %s", what, in_brief(error))


def in_brief(error: Exception) -> str:
    """Its kind, and of a database the driver's own words, in one line without a password."""
    kind = type(error).__name__
    return f"{kind}: {reason(error)}" if isinstance(error, DBAPIError) else kind
