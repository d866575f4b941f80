"""What travels from a request into its jobs and their tasks: one id follows it all along."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quart import g, has_app_context

#: What each part may look like: all of it comes from callers, and goes into logs and headers.
_FORMS = {
    "request_id": re.compile(r"[\w.:+/=@-]{1,128}", re.ASCII),
    "user": re.compile(r"[^\x00-\x1f\x7f]{1,255}"),
    "locale": re.compile(r"[A-Za-z]{1,8}([-_][A-Za-z0-9]{1,8}){0,4}"),
    "traceparent": re.compile(
        r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    ),
}


@dataclass(frozen=True, slots=True)
class Baggage:
    """In `g.baggage` of a request and of the tasks of its jobs; None for what is not known."""

    request_id: str | None = None
    #: The name of the token that asked.
    user: str | None = None
    #: As the request's Accept-Language prefers it: "zh-CN".
    locale: str | None = None
    #: As W3C Trace Context has it.
    traceparent: str | None = None

    def known(self) -> dict[str, str]:
        """What there is, for a row or for a message's headers."""
        return {name: value for name in _FORMS if (value := getattr(self, name)) is not None}

    def http_headers(self) -> dict[str, str]:
        """For a request to another service: what it needs to be found by the same id there."""
        names = {"X-Request-ID": self.request_id, "traceparent": self.traceparent}
        return {name: value for name, value in names.items() if value is not None}


def unpack(parts: Mapping[str, Any] | None) -> Baggage:
    """From a row or a message's headers; what makes no sense is left behind."""
    sound = {
        name: value
        for name, form in _FORMS.items()
        if isinstance(value := (parts or {}).get(name), str) and form.fullmatch(value)
    }
    return Baggage(**sound)


def current() -> Baggage:
    """That of the request or the task which runs here; empty where there is none."""
    found: Baggage = g.get("baggage", _NOTHING) if has_app_context() else _NOTHING
    return found


def carry(baggage: Baggage) -> None:
    """For the rest of this application context."""
    g.baggage = baggage


def add(**parts: str) -> None:
    carry(replace(current(), **parts))


_NOTHING = Baggage()
