"""The commands for schedules: list, show, next, create, pause, resume, run, delete."""

import json
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import click
from quart import Quart
from sqlalchemy.orm import Session

from quart_app import newschedules, schedules
from quart_app.cli.terminal import as_json, do, grouped, moment, see
from quart_app.models import Schedule


def group(app: Quart) -> click.Group:
    changes = {"pause": schedules.pause, "resume": schedules.resume}
    commands = [_list(app), _show(app), _next(app), _create(app), _run(app), _delete(app)]
    commands += [_change(app, word, verb) for word, verb in changes.items()]
    return grouped(app, "schedules", "Make, list, pause, run and delete schedules.", commands)


def _list(app: Quart) -> click.Command:
    @click.command("list", help="Show all schedules, with their rules and next times.")
    def command() -> None:
        for schedule in see(app, schedules.everyone):
            click.echo(f"{schedule.name:<24} {_rule(schedule):<20} {_when(schedule)}")

    return command


def _show(app: Quart) -> click.Command:
    @click.command("show", help="Show one schedule.")
    @click.argument("name")
    def command(name: str) -> None:
        schedule = see(app, schedules.named, name)
        facts = {"id": schedule.id, "source": schedule.source, "task": schedule.task}
        facts |= {"args": json.dumps(schedule.args), "kwargs": json.dumps(schedule.kwargs)}
        facts |= {"rule": _rule(schedule), "timezone": schedule.timezone}
        facts |= {"missed": schedule.missed, "next": _when(schedule)}
        for word, fact in facts.items():
            click.echo(f"{word:<9} {fact}")

    return command


def _next(app: Quart) -> click.Command:
    @click.command("next", help="Show the next times of one; * marks those a clock change moved.")
    @click.argument("name")
    @click.option("--count", default=5, show_default=True, type=click.IntRange(1, 100))
    def command(name: str, count: int) -> None:
        for time, is_moved in see(app, _by_name(schedules.upcoming), name, count):
            click.echo(f"{time.isoformat(sep=' ')}{' *' if is_moved else ''}")

    return command


def _create(app: Quart) -> click.Command:
    @click.command("create", help="Make a schedule of a task; --cron or --interval is needed.")
    @click.argument("name")
    @click.argument("task")
    @click.option("--args", type=as_json("a list", list), help="JSON.")
    @click.option("--kwargs", type=as_json("an object", dict), help="JSON.")
    @click.option("--cron", help="Five fields, or a form such as @daily.")
    @click.option("--interval", type=float, help="Seconds.")
    @click.option("--timezone", help="IANA; CELERY_TIMEZONE if not given.")
    @click.option("--starts-at", type=moment, help="ISO 8601 with offset.")
    @click.option("--ends-at", type=moment, help="ISO 8601 with offset.")
    @click.option("--missed", type=click.Choice(newschedules.MISSED), help="once if not given.")
    @click.option("--queue")
    def command(name: str, task: str, **options: Any) -> None:
        given = {option: value for option, value in options.items() if value is not None}
        made = do(app, schedules.create, name, task, **given)
        click.echo(f"Schedule {made.name!r} is made; next: {_when(made)}.")

    return command


def _change(app: Quart, word: str, verb: Callable[..., Schedule]) -> click.Command:
    @click.command(word, help=f"{word.capitalize()} a schedule, one of settings too.")
    @click.argument("name")
    def command(name: str) -> None:
        schedule = do(app, _by_name(verb), name)
        click.echo(f"Schedule {schedule.name!r}; next: {_when(schedule)}.")

    return command


def _run(app: Quart) -> click.Command:
    @click.command("run", help="Make a job of a schedule now, and show the job's id.")
    @click.argument("name")
    def command(name: str) -> None:
        click.echo(do(app, _by_name(schedules.run_now), name).id)

    return command


def _delete(app: Quart) -> click.Command:
    @click.command("delete", help="Delete a schedule; the jobs it made stay.")
    @click.argument("name")
    def command(name: str) -> None:
        do(app, _by_name(schedules.delete), name)
        click.echo(f"Schedule {name!r} is deleted.")

    return command


def _by_name(verb: Callable[..., Any]) -> Callable[..., Any]:
    def named(session: Session, name: str, *more: Any) -> Any:
        return verb(session, schedules.named(session, name).id, *more)

    return named


def _rule(schedule: Schedule) -> str:
    return schedule.cron or f"every {schedule.interval:g} s"


def _when(schedule: Schedule) -> str:
    """Its next due time as the clocks of its zone show it."""
    if schedule.next_at is None:
        return "paused" if schedule.paused else "has ended"
    local = schedule.next_at.astimezone(ZoneInfo(schedule.timezone))
    return f"{local:%Y-%m-%d %H:%M:%S} {schedule.timezone}"
