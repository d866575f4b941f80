"""Breaks the main loop of a worker, once, as some losses of Redis do."""

import os
from pathlib import Path
from typing import Any, NoReturn

from celery.signals import worker_ready
from kombu.transport.redis import MultiChannelPoller

_BROKEN = Path(os.environ["VAR_DIR"]) / "was-broken"


def _break(*_: Any) -> NoReturn:
    raise AttributeError("'NoneType' object has no attribute 'hostname'")


def _from_now_on(**_: Any) -> None:
    MultiChannelPoller.on_readable = _break  # type: ignore[method-assign]


_BROKEN.parent.mkdir(parents=True, exist_ok=True)
if not _BROKEN.exists():
    _BROKEN.touch()
    worker_ready.connect(_from_now_on, weak=False)
