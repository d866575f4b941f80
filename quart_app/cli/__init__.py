"""The commands: up, serve, migrate, doctor, and in modules of their own jobs and others."""

import asyncio
import sys

import click
from quart import Quart

from quart_app import audit, binding, health, migrations, up
from quart_app.cli import jobs, schedules, tokens
from quart_app.cli.terminal import clear, do
from quart_app.serve import serve

_PRUNE = "tasks.scheduler.prune"
_NOT_HERE = "up needs Linux or macOS: use WSL, or start the web, a worker and beat by hand."


def init_app(app: Quart) -> None:
    own = (_up(app), _serve(app), _migrate(app), _doctor(app))
    for command in (*own, jobs.group(app), tokens.group(app), schedules.group(app)):
        app.cli.add_command(command)


def _up(app: Quart) -> click.Command:
    @click.command("up", help="Start everything on this machine; Ctrl-C stops all of it.")
    @click.option("--bind", default="127.0.0.1:8000", show_default=True, help="Address of the web.")
    @click.option(
        "--workers",
        default=1,
        type=click.IntRange(1),
        help="Number of web processes; Celery's are --concurrency.",
    )
    @click.option("--concurrency", type=click.IntRange(1), help="Size of the Celery pool.")
    def command(bind: str, workers: int, concurrency: int | None) -> None:
        if sys.platform == "win32":
            raise click.ClickException(_NOT_HERE)
        raise SystemExit(up.run(app, bind, workers, concurrency))

    return clear(command)


def _serve(app: Quart) -> click.Command:
    @click.command("serve", help="Serve the web alone, as `up` does.")
    @click.option("--bind", default="127.0.0.1:8000", show_default=True)
    @click.option("--fd", type=int, help="A listening socket that was handed down, instead.")
    def command(bind: str, fd: int | None) -> None:
        sock = binding.listen(bind) if fd is None else binding.handed_down(fd)
        asyncio.run(serve(app, sock))

    return clear(command)


def _migrate(app: Quart) -> click.Command:
    @click.command("migrate", help="Bring the database to the current schema.")
    def command() -> None:
        before = migrations.current(app.extensions["db"])
        revision = migrations.upgrade(app.extensions["db"])
        if revision != before:
            do(app, audit.record, "database.migrate", revision, before=before)
        click.echo(f"The database is at {revision}.")

    return clear(command)


def _doctor(app: Quart) -> click.Command:
    @click.command("doctor", help="Check each part; exit 1 if something is wrong.")
    def command() -> None:
        parts = health.check(app.extensions["db"], app.extensions["publisher"])
        for part in [_settings(app), *parts]:
            state = f"{part.fault}: {part.remedy}" if part.fault else "ok"
            click.echo(f"{part.name:<9} {state}")
        raise SystemExit(any(part.fault for part in parts))

    return command


def _settings(app: Quart) -> health.Part:
    """What passes at the start since it may be meant: no reason to fail."""
    # Only here: every process would load Celery's commands else.
    from quart_app.cli import unread  # noqa: PLC0415

    if odd := unread.names():
        told = ", ".join(f"{name} (is {like} meant?)" if like else name for name, like in odd)
        return health.Part("settings", f"nothing reads {told}", "correct the name, or take it away")
    scheduled = {entry["task"] for entry in app.config["CELERY_BEAT_SCHEDULE"].values()}
    if not {_PRUNE} & scheduled & app.extensions["celery"].tasks.keys():
        remedy = "name tasks.scheduler in CELERY_IMPORTS, and its prune in CELERY_BEAT_SCHEDULE"
        return health.Part("settings", "none of them has old jobs deleted", remedy)
    return health.Part("settings")
