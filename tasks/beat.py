"""Celery's beat with our clockwork: schedules are rows, and what is due becomes a job."""

import logging
import os
import platform
from collections.abc import Callable
from typing import Any

from celery import beat
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from quart_app import clockwork, db, nodes, publisher, relay, schedules
from quart_app.celeryext import in_app_context
from quart_app.nodes import Pulse
from quart_app.seldom import Seldom, in_brief

#: Seconds between two looks at the schedules: so soon is a change of one seen.
EVERY = 1.0

logger = logging.getLogger(__name__)


class Scheduler(beat.Scheduler):
    """Any number may run at once: a due time of a schedule makes one job, whoever is first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.max_interval = EVERY

    def setup_schedule(self) -> None:
        self.quart_app, self.adopted = self.app.quart_app, False
        self.warnings = Seldom()
        boot = self.quart_app.extensions["boot"]
        name = f"beat@{platform.node()}:{os.getpid()}"
        info = {"pid": os.getpid()}
        self.leave: Callable[[Session], None] = lambda session: nodes.gone(session, name, boot)
        self.pulse = Pulse(
            self.quart_app, lambda session: nodes.seen(session, name, "beat", boot, info)
        )
        self.pulse.start()

    def tick(self, *_: Any, **__: Any) -> float:
        """Seconds until the next look."""
        try:
            return in_app_context(self.quart_app, self._tick)
        except Exception as error:
            # Beat goes on: the database or the broker may be back at the next look.
            self.warnings.warn(logger, "Beat could not look", error)
            return EVERY

    def close(self) -> None:
        self.pulse.stop()
        try:
            with self.quart_app.extensions["db"].session() as session:
                self.leave(session)
        except SQLAlchemyError as error:  # its row grows old by itself
            logger.warning("Beat could not say that it ends: %s", in_brief(error))
        self.quart_app.extensions["publisher"].close()
        super().close()

    def _adopt(self) -> None:
        conf = self.app.conf
        with db.session() as session:
            schedules.adopt_settings(session, conf.beat_schedule, str(conf.timezone))

    def _tick(self) -> float:
        if not self.adopted:
            self._adopt()
            self.adopted = True
        with db.session() as session:
            wait = clockwork.tick(session)
        touched = relay.tick(db.get(), publisher.get())
        return relay.pause_after(touched, min(wait, EVERY))
