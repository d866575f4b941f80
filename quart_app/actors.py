"""Who acts: a token by the API or the console, somebody at the command line, or our own code."""

import getpass
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from quart import Quart, g, has_app_context

from quart_app import baggage
from quart_app.celeryext import in_app_context
from quart_app.errors import Denied

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Actor:
    """`via` is api, console or cli; code stands for a task, whoever asked for its job."""

    name: str
    via: str
    #: Patterns of the tasks it may use, such as `tasks.background.*`; none means all.
    tasks: Sequence[str] = ()

    def may_use(self, task: str) -> bool:
        return not self.tasks or any(fnmatchcase(task, pattern) for pattern in self.tasks)


def current() -> Actor:
    """Who asked for what runs here."""
    found: Actor | None = g.get("actor") if has_app_context() else None
    return found or Actor(baggage.current().user or "", "code")


def carry(actor: Actor) -> None:
    """For the rest of this application context."""
    g.actor = actor


def at_terminal(app: Quart, body: Callable[[], T]) -> T:
    """Calls `body` in a context of `app`, as the user of this machine; outside any loop."""

    def as_user() -> T:
        name = f"cli:{_user()}"
        carry(Actor(name, "cli"))
        baggage.add(user=name)
        return body()

    return in_app_context(app, as_user)


def check(task: str) -> None:
    """Raises Denied unless whoever acts may use the task."""
    if not current().may_use(task):
        raise Denied(f"Your token may not use the task {task}.")


def _user() -> str:
    try:
        return getpass.getuser()[:100]
    except (OSError, KeyError, ImportError):
        return "unknown"  # a number without a name, as in some containers
