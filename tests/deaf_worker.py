"""Makes a worker deaf, once: it is connected, alive, and asks Redis for nothing."""

import os
from pathlib import Path
from typing import Any

from kombu.transport.redis import Channel

_DEAF = Path(os.environ["VAR_DIR"]) / "was-deaf"


def _ask_nothing(self: Any, timeout: float | None = None) -> None:
    self._in_poll = None


if not _DEAF.exists():
    _DEAF.touch()
    Channel._brpop_start = _ask_nothing  # type: ignore[method-assign]
