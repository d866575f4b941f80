"""Phone numbers: whatever people write, read into E.164 or refused."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field
from quart import current_app, has_app_context

MAX_LENGTH = 40

#: Digits of any script, spaces, dashes, brackets, and the invisible marks that come with copying.
_CATEGORIES = frozenset({"Nd", "Zs", "Pd", "Ps", "Pe", "Cf"})
_NO_REGION = "ZZ"


def parse_number(text: str, region: str) -> str:
    """The number in E.164; `region` (such as "CN") is meant when it has no country code.

    It must be possible, not known: numbering plans change faster than any list of them, and the
    provider has the last word. Raises ValueError with a sentence fit to show.
    """
    if len(text) <= MAX_LENGTH and all(map(_may_stand_in_a_number, text)):
        number = _e164(text, region)
        if number is not None:
            return number
    raise ValueError("expected a phone number such as +8613800138000")


def masked(number: str) -> str:
    """Its beginning and its end: enough to tell it from another, and fit for a log."""
    head, tail = min(6, len(number) // 2 - 1), 3
    return number[:head] + "*" * (len(number) - head - tail) + number[-tail:]


def _may_stand_in_a_number(character: str) -> bool:
    return character in "+＋./" or unicodedata.category(character) in _CATEGORIES


def _e164(text: str, region: str) -> str | None:
    # Nearly 60 modules, which each start would wait for, and few processes ever need.
    import phonenumbers as library  # noqa: PLC0415

    try:
        number = library.parse(text, region)
    except library.NumberParseException:
        return None
    if library.is_possible_number_with_reason(number) != library.ValidationResult.IS_POSSIBLE:
        return None
    return library.format_number(number, library.PhoneNumberFormat.E164)


def _of_default_region(text: str) -> str:
    region = current_app.config["SMS_DEFAULT_REGION"] if has_app_context() else _NO_REGION
    return parse_number(text, region)


#: For signatures: validated by pydantic, the default region taken from the application.
Number = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_LENGTH,
        description="A phone number, best with its country code.",
        examples=["+8613800138000"],
    ),
    AfterValidator(_of_default_region),
]
