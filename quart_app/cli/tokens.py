"""The commands for API tokens: create, list, revoke."""

import click
from quart import Quart

from quart_app import tokens
from quart_app.cli.terminal import grouped
from quart_app.models import Role


def group(app: Quart) -> click.Group:
    commands = (_create(app), _list(app), _revoke(app))
    return grouped(app, "tokens", "Make, list and revoke API tokens.", commands)


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
