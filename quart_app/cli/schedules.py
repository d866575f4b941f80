"""The commands for schedules: list, show, next, create, change, pause, resume, run, delete."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import click
from quart import Quart
from sqlalchemy.orm import Session

from quart_app import duetimes, newschedules, schedules
from quart_app.cli.terminal import as_json, do, grouped, moment, see
from quart_app.models import Schedule


def group(app: Quart) -> click.Group:
    switches = {"pause": schedules.pause, "resume": schedules.resume}
    commands = [_list(app), _show(app), _next(app), _create(app), _change(app), _run(app)]
    commands += [_switch(app, word, verb) for word, verb in switches.items()]
    about = "Make, list, change, pause, run and delete schedules."
    return grouped(app, "schedules", about, [*commands, _delete(app)])


def _list(app: Quart) -> click.Command:
    @click.command("list", help="Show all schedules, with their rules, next times and tasks.")
    def command() -> None:
        found = see(app, schedules.everyone)
        if found:
            click.echo(_row("name", "rule", "next", "task"))
        for schedule in found:
            click.echo(_row(schedule.name, _rule(schedule), _when(schedule), schedule.task))

    return command


def _show(app: Quart) -> click.Command:
    @click.command("show", help="Show one schedule.")
    @click.argument("name")
    def command(name: str) -> None:
        schedule = see(app, schedules.named, name)
        facts: dict[str, Any] = {
            "id": schedule.id,
            "source": schedule.source,
            "task": schedule.task,
        }
        facts |= {"args": json.dumps(schedule.args), "kwargs": json.dumps(schedule.kwargs)}
        facts |= {"rule": _rule(schedule), "timezone": schedule.timezone}
        facts |= {"missed": schedule.missed, "queue": schedule.queue or "-"}
        facts |= {"starts": schedule.starts_at or "-", "ends": schedule.ends_at or "-"}
        facts |= {"next": _when(schedule)}
        for word, fact in facts.items():
            click.echo(f"{word:<9} {fact}")

    return command


def _next(app: Quart) -> click.Command:
    @click.command("next", help="Show the next times of one; * marks those a clock change moved.")
    @click.argument("name")
    @click.option("--count", default=5, show_default=True, type=click.IntRange(1, 1_000))
    def command(name: str, count: int) -> None:
        for time, is_moved in see(app, _by_name(schedules.upcoming), name, count):
            click.echo(f"{time.isoformat(sep=' ')}{' *' if is_moved else ''}")

    return command


_OPTIONS = (
    click.option("--args", type=as_json("a list", list), metavar="JSON", help="A list."),
    click.option("--kwargs", type=as_json("an object", dict), metavar="JSON", help="An object."),
    click.option("--cron", help="Five fields, or a form such as @daily."),
    click.option("--interval", type=float, help="Seconds."),
    click.option("--timezone", help="IANA; CELERY_TIMEZONE if never given."),
    click.option("--starts-at", type=moment, metavar="TIME", help="ISO 8601 with offset."),
    click.option("--ends-at", type=moment, metavar="TIME", help="ISO 8601 with offset."),
    click.option("--missed", type=click.Choice(newschedules.MISSED), help="once if never given."),
    click.option("--queue"),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    return reduce(lambda inner, option: option(inner), reversed(_OPTIONS), command)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if value is not None}


def _create(app: Quart) -> click.Command:
    @click.command("create", help="Make a schedule of a task; --cron or --interval is needed.")
    @click.argument("name")
    @click.argument("task")
    @_with_options
    def command(name: str, task: str, **options: Any) -> None:
        made = do(app, schedules.create, name, task, **_given(options))
        click.echo(f"Schedule {made.name!r} is made; next: {_when(made)}.")

    return command


def _change(app: Quart) -> click.Command:
    @click.command("change", help="Change what is given of a schedule; the rest stays.")
    @click.argument("name")
    @click.option("--name", "new_name", help="Its name from now on.")
    @click.option("--task")
    @_with_options
    @click.option("--clear", multiple=True, type=click.Choice(["queue", "starts-at", "ends-at"]))
    def command(name: str, new_name: str | None, clear: Sequence[str], **options: Any) -> None:
        changes = _given(options | {"name": new_name})
        cleared = dict.fromkeys(word.replace("-", "_") for word in clear)
        if twice := sorted(changes.keys() & cleared):
            raise click.UsageError(f"{', '.join(twice)}: given and cleared at once.")
        changes |= cleared
        if not changes:
            raise click.UsageError("Give what is to change, such as --cron '30 4 * * *'.")
        changed = do(app, _by_name(schedules.change), name, **changes)
        click.echo(f"Schedule {changed.name!r} is changed; next: {_when(changed)}.")

    return command


def _switch(app: Quart, word: str, verb: Callable[..., Schedule]) -> click.Command:
    @click.command(word, help=f"{word.capitalize()} a schedule, one of settings too.")
    @click.argument("name")
    def command(name: str) -> None:
        schedule = do(app, _by_name(verb), name)
        now = "is paused" if schedule.paused else f"goes on; next: {_when(schedule)}"
        click.echo(f"Schedule {schedule.name!r} {now}.")

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
    def named(session: Session, known_as: str, /, *more: Any, **options: Any) -> Any:
        return verb(session, schedules.named(session, known_as).id, *more, **options)

    return named


def _row(name: str, rule: str, next_: str, task: str) -> str:
    return f"{name:<24} {rule:<20} {next_:<33} {task}"


def _rule(schedule: Schedule) -> str:
    return schedule.cron or f"every {schedule.interval:g} s"


def _when(schedule: Schedule) -> str:
    """Its next due time as the clocks of its zone show it."""
    if schedule.next_at is None:
        return "paused" if schedule.paused else "has ended"
    local = duetimes.local(schedule, schedule.next_at)
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzinfo}"
