"""The commands for API tokens: create, list, revoke."""

import re
from datetime import datetime, timedelta

import click
from quart import Quart

from quart_app import tokens
from quart_app.cli.terminal import do, grouped, moment, see
from quart_app.models import Role, Token

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def group(app: Quart) -> click.Group:
    commands = (_create(app), _list(app), _revoke(app))
    return grouped(app, "tokens", "Make, list and revoke API tokens.", commands)


def _create(app: Quart) -> click.Command:
    roles = click.Choice([role.value for role in Role])

    @click.command("create", help="Make a token and show it, this once.")
    @click.argument("name")
    @click.option("--role", type=roles, default=Role.OPERATOR.value, show_default=True)
    @click.option(
        "--expires",
        type=_end,
        metavar="SPAN|TIME",
        help="As 30d, 12h or 90m from now, or ISO 8601.",
    )
    @click.option(
        "--task", "tasks", multiple=True, metavar="PATTERN",
        help="A task it may use, as tasks.background.*; may be repeated. All if not given.",
    )  # fmt: skip
    def command(
        name: str, role: str, expires: datetime | timedelta | None, tasks: tuple[str, ...]
    ) -> None:
        secret = do(app, tokens.create, name, Role(role), expires=expires, tasks=tasks)
        click.echo(f"Token {name!r} with the role {role}; it is not shown again:", err=True)
        click.echo(secret)

    return command


def _list(app: Quart) -> click.Command:
    @click.command("list", help="Show who has a token and what for, never the tokens themselves.")
    def command() -> None:
        for token in see(app, tokens.everyone):
            click.echo(_line(token))

    return command


def _revoke(app: Quart) -> click.Command:
    @click.command("revoke", help="End a token at once.")
    @click.argument("name")
    def command(name: str) -> None:
        do(app, tokens.revoke, name)
        click.echo(f"Token {name!r} is revoked.")

    return command


def _line(token: Token) -> str:
    facts = [
        f"{token.name:<24} {token.role:<9} made {_time(token.created_at)}",
        f"expires {_time(token.expires_at)}",
        f"used {_time(token.used_at)}",
        f"tasks {' '.join(token.tasks or ['all'])}",
    ]
    return "  ".join(facts)


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else f"{'never':<20}"


def _end(text: str) -> datetime | timedelta:
    """How long from now, or when."""
    if span := re.fullmatch(r"(\d{1,6})([mhd])", text, re.ASCII):
        return timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return moment(text)
    except click.BadParameter as wrong:
        raise click.BadParameter(f"{wrong}, or a span as 30d, 12h or 90m") from None
