"""Facts that go wrong, raised by the domain and dressed once per channel (HTTP, page, terminal)."""


class Problem(Exception):
    """Something the caller can understand; `str(problem)` is a sentence fit to show."""

    status = 500
    title = "Problem"


class Invalid(Problem):
    """A value that cannot be used; `field` names it as the caller wrote it."""

    status = 422
    title = "Invalid input"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


class Denied(Problem):
    """Whoever asks is known, and may not."""

    status = 403
    title = "Forbidden"


class NotFound(Problem):
    status = 404
    title = "Not found"


class NoSuchTask(NotFound):
    """No module that this process has loaded has a task of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no task {name!r}; GET /api/tasks lists them.")
        self.name = name


class Conflict(Problem):
    """The thing is there, but its state does not allow what was asked."""

    status = 409
    title = "Conflict"


class Full(Problem):
    """A queue holds as many jobs as it may; try again later."""

    status = 429
    title = "Queue full"


class Unsure(Problem):
    """The database went away within a commit, and has not said yet whether that got through."""

    status = 503
    title = "Outcome unknown"

    def __init__(self) -> None:
        super().__init__(
            "The database went away just now: this may or may not have been carried out. Look, or"
            " send it again where that does no harm, as with the same Idempotency-Key."
        )


class Permanent(Exception):
    """Raised inside a task: the job fails at once, since another attempt would not mend it."""
