"""What all commands have in common: a known problem is one line, a group sees a ready database."""

from collections.abc import Iterable

import click
from quart import Quart
from sqlalchemy.exc import DBAPIError

from quart_app import migrations
from quart_app.errors import Problem


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
        except DBAPIError as error:
            reason = str(error.orig).partition("\n")[0]
            raise click.ClickException(f"The database does not answer: {reason}") from None

    command.callback = run_clearly
    return command
