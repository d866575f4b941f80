"""What became of a message, told from the HTTP exchanges that were seen."""

import ssl
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from quart_app.sms.exchanges import Exchange
from quart_app.sms.outcomes import NotReached, OutcomeUnknown, Refused

#: Answers of something between us and the provider, which may have taken the message.
_HEARSAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})


def judge(exchanges: Sequence[Exchange]) -> Exception:
    """The outcome of a call that did not succeed; in doubt OutcomeUnknown."""
    reasons = [_why_unconnected(exchange) for exchange in exchanges]
    if reasons and all(reasons):
        return NotReached(f"the provider could not be reached: {reasons[-1]}")
    if exchanges and all(map(_is_refusal, exchanges)):
        return Refused(f"the provider {_answered(exchanges[-1])}")
    return OutcomeUnknown(f"the provider may have the message: {_doubt(exchanges)}")


def _why_unconnected(exchange: Exchange) -> str | None:
    """Why no byte of the request can have left, in words that name no address."""
    match _root(exchange):
        case NameResolutionError():
            return "its host name is not known"
        case NewConnectionError():
            return "no connection"
        case ConnectTimeoutError():
            return "no connection in time"
        case ssl.SSLCertVerificationError():
            return "its certificate is not valid"
    return None


def _root(exchange: Exchange) -> object:
    """What urllib3 met, out of what requests, its retries, a proxy and TLS wrap it in."""
    if not isinstance(exchange, requests.ConnectionError) or not exchange.args:
        return None
    reason: object = getattr(exchange.args[0], "reason", None)
    reason = getattr(reason, "original_error", reason)
    if isinstance(reason, SSLError) and reason.args:
        return reason.args[0]
    return reason


def _is_refusal(exchange: Exchange) -> bool:
    return isinstance(exchange, int) and 400 <= exchange < 600 and exchange not in _HEARSAY


def _answered(status: Any) -> str:
    phrases = {int(known): known.phrase for known in HTTPStatus}
    return f"answered HTTP {status} {phrases.get(status, '')}".rstrip()


def _doubt(exchanges: Sequence[Exchange]) -> str:
    match exchanges[-1:]:
        case [int() as status]:
            return f"it {_answered(status)}"
        case [requests.Timeout()]:
            return "it did not answer in time"
        case [requests.ConnectionError()]:
            return "the connection broke"
    return "what it answered is not clear"
