"""The services that a URL of Apprise names: one message makes one HTTP request."""

from typing import Any

from apprise import Apprise, AppriseAsset, OverflowMode
from apprise.plugins import url_to_dict

from quart_app import baggage
from quart_app.sms import exchanges
from quart_app.sms.answers import judge
from quart_app.sms.numbers import masked
from quart_app.sms.outcomes import Refused

_ASSET = AppriseAsset(app_id="Quartermaster", secure_logging=True)
_ANYBODY = "+12015550123"

#: What Apprise would put into the body of a generic HTTP request, besides the message.
_UNWANTED = {
    "json": ("version", "title", "type", "attachments"),
    "form": ("version", "title", "type"),
}


class Gateway:
    """A service by its Apprise URL: one message makes one HTTP request, never repeated.

    An SMS service (`twilio://…`, `vonage://…`) gets the number as its only target; a target that
    the URL brings along is not used. `json://`, `jsons://`, `form://` and `forms://` post the
    fields `to`, `text` and `reference`. There the URL may rename a field, drop it or add one, in
    Apprise's way: `:to=phone`, `:message=content` (for `text`), `:reference=`, `:sender=Me`.
    `timeout` seconds hold for connecting and for each wait, unless the URL has `cto` or `rto`.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        with exchanges.watch():
            self._address = _address(url, timeout)
            usable = self._address and _service(self._address, _ANYBODY, "reference")
        if not usable:
            # Nothing of the URL is shown: any part of it may be a credential.
            expected = "console, json://…, form://… or an SMS service such as twilio://…"
            raise ValueError(f"expected {expected}, complete as Apprise documents it")
        self.name = str(self._address["schema"])

    def send(self, to: str, text: str, reference: str) -> None:
        with exchanges.watch() as seen:
            service = _service(self._address, to, reference)
            if service is None:
                raise Refused(f"{self.name} does not take numbers such as {masked(to)}")
            taken = _hand_over(service, text)
        if not taken:
            raise judge(seen)


def _address(url: str, timeout: float) -> dict[str, Any]:
    """The parts of the URL as Apprise names them, empty where it can make nothing of it."""
    try:
        parts = url_to_dict(url) or {}  # type: ignore[no-untyped-call]
    except (AttributeError, LookupError, TypeError, ValueError):  # a plugin's parser stumbled
        parts = {}
    # A redirect would be a second request, and a first answer that says neither yes nor no.
    return parts and {"rto": timeout, "cto": timeout, **parts, "redirect": False}


def _service(address: dict[str, Any], to: str, reference: str) -> Any | None:
    """The Apprise plugin set to write to this number alone, or None if it cannot."""
    generic = _UNWANTED.get(address["schema"].removesuffix("s"))
    own = _letter(address, to, reference, generic) if generic else {}
    service: Any = Apprise.instantiate({**address, "targets": [to], **own}, asset=_ASSET)
    if service is None or not (generic or _writes_to_phones(service)):
        return None
    service.request_rate_per_sec = 0
    # A plugin drops a target it does not like, and some then write to the sender's own number.
    return service if to.removeprefix("+") in service.url() else None


def _letter(
    address: dict[str, Any], to: str, reference: str, unwanted: tuple[str, ...]
) -> dict[str, Any]:
    """The fields and headers of a generic HTTP request; a header that the URL sets stands."""
    headers = baggage.current().http_headers() | (address.get("headers") or {})
    return {"payload": _fields(address["payload"], to, reference, unwanted), "headers": headers}


def _fields(
    given: dict[str, str], to: str, reference: str, unwanted: tuple[str, ...]
) -> dict[str, str]:
    """Apprise's payload map: a name of its own is renamed, or dropped where empty; others added."""
    own = {given.get("to", "to"): to, given.get("reference", "reference"): reference}
    rest = {name: value for name, value in given.items() if name not in ("to", "reference")}
    fields = {**dict.fromkeys(unwanted, ""), "message": "text", **rest, **own}
    # A field renamed to its own name would be lost.
    return {name: value for name, value in fields.items() if name and name != value}


def _writes_to_phones(service: Any) -> bool:
    return any(name.startswith("target_phone") for name in service.template_tokens)


def _hand_over(service: Any, text: str) -> bool:
    try:
        return bool(service.notify(body=text, overflow=OverflowMode.UPSTREAM))
    except Exception:  # a plugin at fault tells nothing about the message
        return False
