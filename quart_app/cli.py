"""The commands: up, serve, migrate, doctor, tokens."""

import asyncio
import sys

import click
from quart import Quart
from sqlalchemy.exc import DBAPIError

from quart_app import binding, health, migrations, tokens, up, valkey
from quart_app.errors import Problem
from quart_app.models import Role
from quart_app.serve import serve

_NOT_HERE = "up needs Linux or macOS: use WSL, or start the web, a worker and beat by hand."


def init_app(app: Quart) -> None:
    for command in (_up(app), _serve(app), _migrate(app), _doctor(app), _tokens(app)):
        app.cli.add_command(command)


def _up(app: Quart) -> click.Command:
    @click.command("up", help="Start everything on this machine; Ctrl-C stops all of it.")
    @click.option("--bind", default="127.0.0.1:8000", show_default=True, help="Address of the web.")
    @click.option("--workers", default=1, type=click.IntRange(1), help="Number of web processes.")
    @click.option("--concurrency", type=click.IntRange(1), help="Size of the Celery pool.")
    def command(bind: str, workers: int, concurrency: int | None) -> None:
        if sys.platform == "win32":
            raise click.ClickException(_NOT_HERE)
        try:
            raise SystemExit(up.run(app, bind, workers, concurrency))
        except (valkey.Locked, valkey.ServerMissing, binding.BadAddress) as error:
            raise click.ClickException(str(error)) from None

    return _clear(command)


def _serve(app: Quart) -> click.Command:
    @click.command("serve", help="Serve the web alone, as `up` does.")
    @click.option("--bind", default="127.0.0.1:8000", show_default=True)
    @click.option("--fd", type=int, help="A listening socket that was handed down, instead.")
    def command(bind: str, fd: int | None) -> None:
        asyncio.run(serve(app, bind if fd is None else f"fd://{fd}"))

    return command


def _migrate(app: Quart) -> click.Command:
    @click.command("migrate", help="Bring the database to the current schema.")
    def command() -> None:
        click.echo(f"The database is at {migrations.upgrade(app.extensions['db'])}.")

    return _clear(command)


def _doctor(app: Quart) -> click.Command:
    @click.command("doctor", help="Check each part; exit 1 if something is wrong.")
    def command() -> None:
        parts = health.check(app.extensions["db"], app.extensions["publisher"])
        for part in [health.Part("settings"), *parts]:
            state = f"{part.fault}: {part.remedy}" if part.fault else "ok"
            click.echo(f"{part.name:<9} {state}")
        raise SystemExit(any(part.fault for part in parts))

    return command


def _tokens(app: Quart) -> click.Command:
    @click.group("tokens", help="Make, list and revoke API tokens.")
    def group() -> None:
        migrations.ensure(app.extensions["db"])

    for command in (_create(app), _list(app), _revoke(app)):
        group.add_command(_clear(command))
    return _clear(group)


def _create(app: Quart) -> click.Command:
    roles = click.Choice([role.value for role in Role])

    @click.command("create", help="Make a token and show it, this once.")
    @click.argument("name")
    @click.option("--role", type=roles, default=Role.OPERATOR.value, show_default=True)
    def command(name: str, role: str) -> None:
        with app.extensions["db"].session() as session:
            secret = tokens.create(session, name, Role(role))
        click.echo(f"Token {name!r} with the role {role}; it is not shown again:", err=True)
        click.echo(secret)

    return command


def _list(app: Quart) -> click.Command:
    @click.command("list", help="Show who has a token, never the tokens themselves.")
    def command() -> None:
        with app.extensions["db"].session(reading=True) as session:
            for token in tokens.everyone(session):
                made = token.created_at.strftime("%Y-%m-%d %H:%M")
                click.echo(f"{token.name:<24} {token.role:<9} made {made} UTC")

    return command


def _revoke(app: Quart) -> click.Command:
    @click.command("revoke", help="End a token at once.")
    @click.argument("name")
    def command(name: str) -> None:
        with app.extensions["db"].session() as session:
            tokens.revoke(session, name)
        click.echo(f"Token {name!r} is revoked.")

    return command


def _clear(command: click.Command) -> click.Command:
    """Shows a known problem as one line instead of a traceback."""
    run = command.callback

    def clear(*args: object, **options: object) -> object:
        try:
            return run(*args, **options) if run else None
        except Problem as problem:
            raise click.ClickException(str(problem)) from None
        except DBAPIError as error:
            reason = str(error.orig).partition("\n")[0]
            raise click.ClickException(f"The database does not answer: {reason}") from None

    command.callback = clear
    return command
