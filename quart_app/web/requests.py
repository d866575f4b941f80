"""The request: JSON that cannot be read is the caller's mistake, however it is broken."""

from typing import Any

import quart
from quart import current_app
from werkzeug.exceptions import BadRequest

BATCH_PATH = "/api/jobs/batch"


class Request(quart.Request):
    """A batch may be bigger than other bodies; nesting without end is refused."""

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **options: Any) -> None:
        if path == BATCH_PATH:
            options["max_content_length"] = current_app.config["MAX_BATCH_CONTENT_LENGTH"]
        super().__init__(method, scheme, path, *args, **options)

    async def get_json(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().get_json(*args, **options)
        except RecursionError:
            raise BadRequest("body: the JSON is nested too deeply") from None

    def on_json_loading_failure(self, error: Exception) -> Any:
        raise BadRequest(f"body: this is not JSON: {error}") from None
