"""Which queues have figures of their own: callers name as many queues as they like."""

from collections.abc import Iterable

#: The label of all the rest; no queue can be called so.
OTHERS = "(others)"
_MOST = 100


class QueueLabels:
    """Its own for each queue that is known, and for the first hundred others to have jobs.

    Each costs memory here, and at whoever scrapes, for good.
    """

    def __init__(self) -> None:
        self._own: set[str] = set()
        self._room = _MOST

    def know(self, queues: Iterable[str]) -> None:
        self._own.update(queues)

    def of(self, queue: str) -> str:
        if queue not in self._own and self._room:
            self._own.add(queue)
            self._room -= 1
        return queue if queue in self._own else OTHERS
