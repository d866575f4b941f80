"""SMS: numbers, texts, the providers that take them, and the rows that say what became of each."""

from quart_app.sms.messages import (
    TASK,
    abandon,
    begin,
    cancel,
    due,
    recent,
    record,
    refuse,
    schedule,
    waiting,
)
from quart_app.sms.numbers import Number, parse_number
from quart_app.sms.outcomes import NotReached, OutcomeUnknown, Refused
from quart_app.sms.providers import Console, Provider, provider
from quart_app.sms.texts import Segments, Text, segments

__all__ = [
    "TASK",
    "Console",
    "NotReached",
    "Number",
    "OutcomeUnknown",
    "Provider",
    "Refused",
    "Segments",
    "Text",
    "abandon",
    "begin",
    "cancel",
    "due",
    "parse_number",
    "provider",
    "recent",
    "record",
    "refuse",
    "schedule",
    "segments",
    "waiting",
]
