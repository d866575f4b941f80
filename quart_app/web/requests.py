"""The request: JSON that cannot be read is the caller's mistake, however it is broken."""

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any, NoReturn

import quart
import uuid_utils
from quart.wrappers.request import Body as QuartBody
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.routing import BaseConverter

from quart_app import baggage

BATCH_PATH = "/api/jobs/batch"
_MOST_LEVELS = 100
#: Brackets: a big body of nothing else would take seconds, and a hundred times its size.
_MOST_OPENED = 2_000_000
#: Bytes of a body that is read in a thread.
_MUCH = 128 * 1024
_PATIENCE = 5.0


class JobId(BaseConverter):
    """Anything but the last part of a path for many jobs, where nothing is to be had by GET."""

    regex = "(?!(?:batch|cancel|retry)$)[^/]+"


class Body(QuartBody):
    """What is over the limit is let through unkept, also when a form's parser empties the rest."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self.sent = asyncio.Event()
        self._came = 0

    def append(self, data: bytes) -> None:
        self._came += len(data)
        if self._max_content_length is not None and self._came > self._max_content_length:
            self._must_raise = self._must_raise or RequestEntityTooLarge()
            self.clear()
            super().set_complete()
        super().append(data)

    def set_complete(self) -> None:
        self.sent.set()
        super().set_complete()

    def let_go(self) -> None:
        """Nobody reads it any more: what has come is dropped, and so is what still comes."""
        self._must_raise = self._must_raise or BadRequest("body: it came too late")
        self.clear()


class Request(quart.Request):
    """A batch may be bigger than other bodies; `most_in_batch` is in bytes."""

    body_class = Body
    body: Body

    def __init__(
        self, method: str, scheme: str, path: str, *args: Any, most_in_batch: int, **options: Any
    ) -> None:
        if path == BATCH_PATH:
            options["max_content_length"] = most_in_batch
        super().__init__(method, scheme, path, *args, **options)

    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body; raises BadRequest, which says where it is broken, or UnsupportedMediaType."""
        body: Any = await self.get_data(cache=cache)
        if not body:
            raise BadRequest("body: expected JSON, and there is nothing")
        if not self.is_json:
            raise UnsupportedMediaType("body: send it with Content-Type: application/json")
        if len(body) > _MUCH:  # it takes longer than other requests should wait
            return await asyncio.to_thread(_parsed, body)
        return _parsed(body)


async def take_up_baggage() -> None:
    """What the caller sent along, and an id for this request if it has none."""
    sent = quart.request.headers
    told = {
        "request_id": sent.get("X-Request-ID"),
        "traceparent": sent.get("traceparent"),
        "locale": quart.request.accept_languages.best,
    }
    taken = baggage.unpack(told)
    baggage.carry(replace(taken, request_id=taken.request_id or str(uuid_utils.uuid7())))


async def name_request(response: quart.Response) -> quart.Response:
    """Tells the caller the id that logs and jobs know its request by."""
    response.headers["X-Request-ID"] = baggage.current().request_id or ""
    return response


async def hear_out(response: quart.Response) -> quart.Response:
    """Lets the client send the rest of its body: cut off, it would not see the answer."""
    body: Any = quart.request.body
    if not body.sent.is_set():
        body.let_go()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(body.sent.wait(), _PATIENCE)
    return response


def _parsed(body: bytes) -> Any:
    opened = body.count(b"[") + body.count(b"{")
    if opened > _MOST_OPENED:
        raise BadRequest(f"body: expected at most {_MOST_OPENED} lists and objects")
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"body: this is not JSON: {error}") from None
    except ValueError:
        raise BadRequest("body: a number is too long") from None
    except RecursionError:
        value = None
    # Whoever opens few brackets has not nested them deep.
    if value is None or (opened > _MOST_LEVELS and _is_deeper(value, _MOST_LEVELS)):
        raise BadRequest(f"body: expected JSON of {_MOST_LEVELS} levels at most, and not null")
    return value


def _refuse(constant: str) -> NoReturn:
    raise BadRequest(f"body: this is not JSON: {constant} is not a number there")


def _is_deeper(value: Any, levels: int) -> bool:
    inside = [value]
    for _ in range(levels):
        inside = [
            inner
            for outer in inside
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(inside)
