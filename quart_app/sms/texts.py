"""The text of an SMS, and the segments it is cut into on its way."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

#: Twilio's limit, and the strictest of those in common use.
MAX_LENGTH = 1600

#: GSM 03.38: one septet each, and those reached through an escape, which take two.
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")

#: Units in a message of one segment, and in each segment of a longer one.
_ROOM = {"GSM-7": (160, 153), "UCS-2": (70, 67)}


@dataclass(frozen=True)
class Segments:
    encoding: Literal["GSM-7", "UCS-2"]
    #: Septets or UTF-16 code units of the text itself.
    units: int
    count: int
    #: Units that still fit into the last segment.
    left: int


def segments(text: str) -> Segments:
    """What the text costs to send: providers charge by the segment."""
    is_gsm = _BASIC.union(_EXTENDED).issuperset(text)
    widths = [2 if (c in _EXTENDED if is_gsm else c > "\uffff") else 1 for c in text]
    encoding: Literal["GSM-7", "UCS-2"] = "GSM-7" if is_gsm else "UCS-2"
    alone, each = _ROOM[encoding]
    units = sum(widths)
    if units <= alone:
        return Segments(encoding, units, min(units, 1), alone - units)
    count, used = _packed(widths, each)
    return Segments(encoding, units, count, each - used)


def _packed(widths: list[int], room: int) -> tuple[int, int]:
    """Segments needed, and units used in the last: no character is cut in two."""
    count, used = 1, 0
    for width in widths:
        if used + width > room:
            count, used = count + 1, 0
        used += width
    return count, used


def _sendable(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a text that is not blank")
    if "\0" in text:
        raise ValueError("expected a text without NUL characters")
    return text


#: For signatures: validated by pydantic.
Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_LENGTH,
        description="The text of the message.",
        examples=["Hello 你好 👋"],
    ),
    AfterValidator(_sendable),
]
