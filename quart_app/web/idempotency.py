"""`Idempotency-Key`: a request that the same caller sends again is carried out once."""

import json
from typing import Any

from quart import g, request

from quart_app import newjobs
from quart_app.errors import Invalid


def keys(asked: dict[str, Any]) -> dict[str, Any]:
    """The fields of NewJob by which a request is known again, and `asked` told from another."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return {}
    if not 0 < len(key) <= 255:
        raise Invalid("Idempotency-Key", "expected 1 to 255 characters")
    body = json.dumps(asked, sort_keys=True, default=str)
    return {
        "idempotency_key": newjobs.digest(g.user.token_id, key),
        "idempotency_body": newjobs.digest(body),
    }
