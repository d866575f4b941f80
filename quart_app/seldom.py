"""What happens again and again, told once in a while: it would else fill the log."""

import time


class Seldom:
    """Lets each thing pass once in so many seconds."""

    def __init__(self, seconds: float) -> None:
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
