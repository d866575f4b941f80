"""What a client may say over the socket for many jobs, told from what makes no sense."""

import json
from dataclasses import dataclass, field
from typing import Any

from quart_app.errors import Invalid
from quart_app.web.streams import MOST_SEQ

#: In the place of job ids.
ALL = "all"
_KNOWN = ("follow", "after", "unfollow", "ping")
_LONGEST_ID = 64


@dataclass(frozen=True)
class Command:
    """Unfollow first, then follow each job after its seq; `pings` asks for a sign of life."""

    cursors: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    unfollow: list[str] = field(default_factory=list)
    follow_all: bool = False
    unfollow_all: bool = False
    pings: bool = False


def parse(frame: str | bytes) -> Command:
    """Raises Invalid, naming the part that makes no sense."""
    said = _object(frame)
    if odd := [name for name in said if name not in _KNOWN]:
        raise Invalid(_shown(odd[0]), f"unknown; expected one of {', '.join(_KNOWN)}")
    if not said:
        raise Invalid("frame", f"expected one of {', '.join(_KNOWN)}")
    follow, unfollow = _ids(said, "follow"), _ids(said, "unfollow")
    after = _seqs(said.get("after", {}))
    if "after" in said and "follow" not in said:
        raise Invalid("after", "goes with follow")
    return Command(
        cursors={id_: after.get(id_, 0) for id_ in follow if may_be_one(id_)},
        unknown=[_shown(id_) for id_ in follow if not may_be_one(id_)],
        unfollow=unfollow,
        follow_all=said.get("follow") == ALL,
        unfollow_all=said.get("unfollow") == ALL,
        pings="ping" in said,
    )


def _object(frame: str | bytes) -> dict[str, Any]:
    if not isinstance(frame, str):
        raise Invalid("frame", "expected text, not bytes")
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError):
        raise Invalid("frame", "expected JSON") from None
    if not isinstance(said, dict):
        raise Invalid("frame", "expected a JSON object")
    return said


def _ids(said: dict[str, Any], name: str) -> list[str]:
    ids = said.get(name, [])
    if ids == ALL:
        return []
    if not (isinstance(ids, list) and all(isinstance(id_, str) for id_ in ids)):
        raise Invalid(name, f'expected a list of job ids, or "{ALL}"')
    return ids


def _seqs(after: Any) -> dict[str, int]:
    if not isinstance(after, dict):
        raise Invalid("after", "expected an object: the last seq by job id")
    for id_, seq in after.items():
        if type(seq) is not int or not 0 <= seq <= MOST_SEQ:
            raise Invalid(f"after.{_shown(id_)}", f"expected a whole number from 0 to {MOST_SEQ}")
    return after


def may_be_one(id_: str) -> bool:
    """Whether a job may have this id: with any other MySQL would refuse the look at all jobs."""
    return id_.isascii() and id_.isprintable() and 0 < len(id_) <= _LONGEST_ID


def _shown(text: str) -> str:
    """Whatever a client has sent, short and fit to be sent back."""
    return ascii(text)[1:-1][:_LONGEST_ID]
