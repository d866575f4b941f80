"""What became of a message, told from the HTTP exchanges that were seen."""

import ssl
from collections.abc import Sequence
from http import HTTPStatus

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from quart_app.sms.exchanges import Exchange
from quart_app.sms.outcomes import NotReached, OutcomeUnknown, Refused


def judge(exchanges: Sequence[Exchange]) -> Exception:
    """The outcome of a call that did not succeed; in doubt OutcomeUnknown."""
    reasons = [_why_not_reached(exchange) for exchange in exchanges]
    if reasons and all(reasons):
        return NotReached(f"the provider {reasons[-1]}")
    refusals = [_refusal(exchange) for exchange in exchanges]
    if refusals and all(refusals):
        return Refused(f"the provider {refusals[-1]}")
    return OutcomeUnknown(f"the provider may have the message: {_doubt(exchanges)}")


def _why_not_reached(exchange: Exchange) -> str | None:
    """Why it cannot have taken the message and may take it later, in words without an address."""
    if isinstance(exchange, requests.Response):
        return f"takes none now: it {_answered(exchange)}" if _is_busy(exchange) else None
    why = _why_unconnected(exchange)
    return why and f"could not be reached: {why}"


def _is_busy(answer: requests.Response) -> bool:
    """Whether it asks to come again: a bare 503 may stand for what was taken all the same."""
    asks_to_wait = "Retry-After" in answer.headers and answer.status_code == 503
    return asks_to_wait or answer.status_code == 429


def _why_unconnected(exchange: Exchange) -> str | None:
    """Why no byte of the request can have left."""
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


def _refusal(exchange: Exchange) -> str | None:
    """How it said no; what is 500 and above may come after it took the message."""
    if isinstance(exchange, requests.Response) and 400 <= exchange.status_code < 500:
        return _answered(exchange)
    return None


def _answered(answer: requests.Response) -> str:
    phrases = {int(known): known.phrase for known in HTTPStatus}
    return f"answered HTTP {answer.status_code} {phrases.get(answer.status_code, '')}".rstrip()


def _doubt(exchanges: Sequence[Exchange]) -> str:
    match exchanges[-1:]:
        case [requests.Response() as answer]:
            return f"it {_answered(answer)}"
        case [requests.Timeout()]:
            return "it did not answer in time"
        case [requests.ConnectionError()]:
            return "the connection broke"
    return "what it answered is not clear"
