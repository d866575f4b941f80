"""The services a message is handed to: the log, or whatever a URL of Apprise names."""

import logging
from importlib import import_module
from typing import Protocol

from quart_app.sms.numbers import masked
from quart_app.sms.texts import segments

logger = logging.getLogger(__name__)


class Provider(Protocol):
    #: What the messages table shows: never an address, never credentials.
    name: str

    def send(self, to: str, text: str, reference: str) -> None:
        """Returns when the provider took it, else raises Refused, NotReached or OutcomeUnknown.

        `to` is E.164; `reference` is ours, passed on where the service has a place for it.
        """


class Console:
    """Writes a line to the log, without the text; the row in the table is the record."""

    name = "console"

    def send(self, to: str, text: str, reference: str) -> None:
        size = segments(text)
        logger.info(
            "SMS %s to %s: %d segment(s), %s", reference, masked(to), size.count, size.encoding
        )


def provider(url: str) -> Provider:
    """Raises ValueError, without any part of the URL, where it cannot be used."""
    if url == "console":
        return Console()
    # Apprise and its HTTP library are loaded where a URL asks for them, and only there.
    gateway: Provider = import_module("quart_app.sms.gateway").Gateway(url)
    return gateway
