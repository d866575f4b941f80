"""Names that look like settings and that nothing reads, such as slips of the pen."""

from difflib import get_close_matches

from celery.app import defaults
from celery.bin.beat import beat
from celery.bin.worker import worker

import settings

#: What Celery looks up by itself.
_LOOKED_UP = {
    f"CELERY_{name}"
    for name in ("CUSTOM_WORKER_POOL", "LOADER", "RDBSIG", "RDB_HOST", "RDB_PORT", "TRACE_APP")
}
#: So much of both is the same: SMS_PROVDER, but not TEST_DATABASE_URL.
_VERY = 0.88


def names() -> list[tuple[str, str]]:
    """Each, and the known one most like it or ""."""
    known, ours = _known(), [name for name in vars(settings) if name.isupper()]
    celerys = [name for name in settings.celery_names() if name not in known]
    found = [(name, "".join(get_close_matches(name, known, 1))) for name in celerys]
    # Any other may be a program's own, unless it is very like one of ours.
    others = [name for name in settings.other_names() if name not in known]
    likely = [(name, "".join(get_close_matches(name, ours, 1, _VERY))) for name in others]
    return found + [(name, like) for name, like in likely if like]


def _known() -> set[str]:
    options = {f"CELERY_{name.upper()}" for name, _ in defaults.flatten(defaults.NAMESPACES)}
    # As every command of Celery, these two read their options in the environment, too.
    words = {
        f"CELERY_{command.name}_{option.name}".upper()
        for command in (worker, beat)
        for option in command.params
    }
    return options | words | vars(settings).keys() | _LOOKED_UP
