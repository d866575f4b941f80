"""What all commands have in common: a known problem is one line, a group sees a ready database."""

import difflib
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

import click
from quart import Quart
from sqlalchemy.exc import DBAPIError

from quart_app import actors, db, migrations, newjobs
from quart_app.celeryext import in_app_context
from quart_app.errors import NoSuchTask, Problem

T = TypeVar("T")


def grouped(app: Quart, name: str, about: str, commands: Iterable[click.Command]) -> click.Group:
    """The commands under one word; the database is at the current schema when they run."""

    @click.group(name, help=about)
    def group() -> None:
        migrations.ensure(app.extensions["db"])

    for command in commands:
        group.add_command(clear(command))
    clear(group)
    return group


def clear(command: click.Command) -> click.Command:
    """Shows a known problem as one line instead of a traceback."""
    run = command.callback

    def run_clearly(*args: object, **options: object) -> object:
        try:
            return run(*args, **options) if run else None
        except Problem as problem:
            raise click.ClickException(str(problem)) from None
        except UnicodeEncodeError:
            raise click.ClickException("expected text in UTF-8") from None
        except DBAPIError as error:
            said = f"The database does not answer: {db.reason(error)}"
            raise click.ClickException(said) from None

    command.callback = run_clearly
    return command


def do(app: Quart, verb: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Calls `verb(session, …)` in a transaction, as the user of this machine, and rings."""

    def body() -> Any:
        return db.get().run_here(verb, *args, **options)

    try:
        return actors.at_terminal(app, body)
    except NoSuchTask as unknown:
        raise click.ClickException(_those_loaded(app, unknown.name)) from None
    finally:
        app.extensions["publisher"].close()


def _those_loaded(app: Quart, name: str) -> str:
    """That there is no such task here; the settings of a worker may name other modules."""
    loaded = ", ".join(app.config["CELERY_IMPORTS"])
    close = difflib.get_close_matches(name, newjobs.tasks_of(app.extensions["celery"]), 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no task {name!r}; loaded here: {loaded}; CELERY_IMPORTS names others.{hint}"


def see(app: Quart, verb: Callable[..., T], *args: Any, **options: Any) -> T:
    """As `do`, for a verb that only reads."""

    def body() -> T:
        with db.session(reading=True) as session:
            return verb(session, *args, **options)

    return in_app_context(app, body)


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("expected ISO 8601, as 2030-01-01T09:00:00+08:00") from None


def as_json(expected: str, kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise click.BadParameter(f"expected {expected} as JSON")
        return value

    return read
