"""Redis as a worker reads it: what is no message on a queue is dropped, and ends no worker."""

import logging
import time
from queue import Empty
from typing import Any

import kombu.transport
from kombu.transport import redis, virtual
from redis.exceptions import ResponseError

#: What decoding and taking a message raises when somebody else wrote it.
_SENSELESS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)

logger = logging.getLogger(__name__)


def prepare() -> None:
    """Has this process read every `redis://` with care."""
    for scheme in ("redis", "rediss"):
        kombu.transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


class Held(virtual.QoS):
    """The messages that this process has taken and not begun, in its memory alone."""

    def restore_unacked(self) -> None:
        """Gives them back when it ends; of what Redis does not take, kombu would keep a file."""
        if lost := super().restore_unacked():  # type: ignore[no-untyped-call]
            logger.warning("%d messages were not given back: they are rung again.", len(lost))


class Channel(redis.Channel):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        if not self.ack_emulation:
            self.QoS = Held  # type: ignore[assignment]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except _SENSELESS as error:
            logger.warning("Dropped what is no message: %s", type(error).__name__)
        except ResponseError as error:  # full, say: the message is lost, and will be rung again
            logger.warning("Redis refuses: %s", error)
            time.sleep(1)
        raise Empty


class Transport(redis.Transport):
    Channel = Channel
