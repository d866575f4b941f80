"""How long a process has seen the database without a gap: in a gap nobody could keep a lease."""

from datetime import datetime


class Sight:
    """After a gap whoever lives has time to speak before anybody is taken for lost.

    A gap is a database that was away, a machine that slept, or a clock that was set: leases ran out
    meanwhile whose holders are well.
    """

    def __init__(self, lease: float) -> None:
        #: Seconds in which no lease runs out unkept, since each is kept three times while it runs.
        self._gap = max(3.0, lease / 2)
        self._long_enough = min(7.0, lease / 2)
        self._seen: tuple[float, datetime] | None = None
        self._since = 0.0

    def is_clear(self, now: float, at: datetime) -> bool:
        """Notes a look, at `now` by this process's monotonic clock and `at` by the database's."""
        if self._seen is None or self._passed(*self._seen, now, at) > self._gap:
            self._since = now
        self._seen = now, at
        return now - self._since >= self._long_enough

    @staticmethod
    def _passed(before: float, at_before: datetime, now: float, at: datetime) -> float:
        """Seconds, by the clock that says more."""
        return max(now - before, abs((at - at_before).total_seconds()))
