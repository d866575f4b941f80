"""The commands for jobs: submit, list, show, follow, cancel, retry."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from quart import Quart

from quart_app import jobs, lists, newjobs, why
from quart_app.cli.terminal import as_json, do, grouped, moment, printable, see
from quart_app.jobjson import job_json, page_json
from quart_app.lists import Filters, Place
from quart_app.models import Job, JobState

_EXITS = "It exits 0 when the job has succeeded, 1 when it has failed, 2 when it was cancelled."
_SUBMIT = f"""Submit a job of a task; its id is the last line of standard output.

\b
jobs submit tasks.scheduler.send_sms
jobs submit tasks.background.async_send_sms --arg to=+12015550123 --arg text=Hello
jobs submit my_tasks.greet --kwargs '{{"name": "Ada", "times": 3}}' --follow

With --follow it is followed as `jobs follow` does, to its result, on standard error. {_EXITS}
"""
_FOLLOW = f"""Show what happens to a job until it has ended, and its result.

On a terminal a bar shows its progress; elsewhere each step is a line. {_EXITS} Ctrl-C stops
following alone (130): the job goes on.

\b
jobs follow 01a2031e-4b08-7054-b25f-b43bb27ba951
"""
_LIST = """Show jobs, the newest first.

\b
jobs list --state failed --since 2030-01-01T00:00:00+08:00
jobs list --task my_tasks.greet --q Ada --json
"""


def group(app: Quart) -> click.Group:
    commands = (_submit(app), _list(app), _show(app), _follow(app), _cancel(app), _retry(app))
    return grouped(app, "jobs", "Submit, find, follow, cancel and retry jobs.", commands)


def _submit(app: Quart) -> click.Command:
    @click.command("submit", help=_SUBMIT)
    @click.argument("task")
    @click.option(
        "--kwargs", type=as_json("an object", dict), metavar="JSON", help="Its arguments, as JSON."
    )
    @click.option("--arg", "texts", multiple=True, metavar="KEY=VALUE", help="One, as text.")
    @click.option("--queue", metavar="QUEUE", help="That of the task if not given.")
    @click.option("--priority", type=click.IntRange(0, 9), help="0 goes first, 9 last.")
    @click.option("--delay", type=float, help="Seconds to wait.")
    @click.option("--eta", type=moment, metavar="TIME", help="ISO 8601 with offset.")
    @click.option("--unique-key", help="A live job of the task with this key is taken instead.")
    @click.option("--follow", is_flag=True, help="Show what happens until it has ended.")
    def command(task: str, kwargs: Any, texts: Sequence[str], follow: bool, **options: Any) -> None:
        given = {name: value for name, value in options.items() if value is not None}
        job = do(app, jobs.submit, task, kwargs=_arguments(kwargs, texts), **given)
        if job.duplicate:
            click.echo("A live job has this unique key; it is:", err=True)
        click.echo(job.id)
        if follow:
            _follow_it(app, job.id, err=True)

    return command


def _list(app: Quart) -> click.Command:
    @click.command("list", help=_LIST)
    @click.option("--state", type=click.Choice([state.value for state in JobState]))
    @click.option("--task", type=_text, metavar="TASK")
    @click.option("--queue", type=_text, metavar="QUEUE")
    @click.option(
        "--q", "text", type=_text, metavar="TEXT", help="Searched in arguments and errors."
    )
    @click.option("--since", type=moment, metavar="TIME", help="ISO 8601 with offset.")
    @click.option("--until", type=moment, metavar="TIME", help="ISO 8601 with offset.")
    @click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
    @click.option(
        "--cursor", "after", type=_place, metavar="CURSOR", help="Where the page before has ended."
    )
    @click.option("--json", "as_data", is_flag=True, help="As GET /api/jobs has it.")
    def command(
        state: str | None, limit: int, after: Place | None, as_data: bool, **filters: Any
    ) -> None:
        for field in ("since", "until"):
            if filters[field]:
                newjobs.check_time(field, filters[field])
        wanted = Filters(state=JobState(state) if state else None, **filters)
        page = see(app, lists.page, wanted, limit=limit, after=after)
        if as_data:
            _echo_json(page_json(page))
        else:
            _echo_table(page.jobs)
            if page.rest:
                click.echo(f"There are more: --cursor {page.rest}", err=True)

    return command


def _place(text: str) -> Place:
    try:
        return Place.read(text)
    except (ValueError, OverflowError):
        raise click.BadParameter("expected what the page before ended with") from None


def _follow_it(app: Quart, job_id: str, *, err: bool = False) -> NoReturn:
    # Only here: every process would load its library else.
    from quart_app.cli import following  # noqa: PLC0415

    raise SystemExit(following.follow(app, job_id, err=err))


def _show(app: Quart) -> click.Command:
    @click.command("show", help="Show one job: what it is, and why it is where it is.")
    @click.argument("job_id", metavar="ID")
    @click.option("--json", "as_data", is_flag=True, help="As GET /api/jobs/<id> has it.")
    def command(job_id: str, as_data: bool) -> None:
        shown = job_json(see(app, jobs.get, job_id))
        if as_data:
            _echo_json(shown)
            return
        for name, value in shown.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name:<16} {'-' if value is None else printable(text)}")
        click.echo(f"{'why':<16} {printable(see(app, why.explain, job_id).detail)}")

    return command


def _follow(app: Quart) -> click.Command:
    @click.command("follow", help=_FOLLOW)
    @click.argument("job_id", metavar="ID")
    def command(job_id: str) -> None:
        _follow_it(app, job_id)

    return command


def _cancel(app: Quart) -> click.Command:
    @click.command("cancel", help="Cancel a job; one that runs is asked to stop.")
    @click.argument("job_id", metavar="ID")
    def command(job_id: str) -> None:
        job = do(app, jobs.cancel, job_id)
        done = "is cancelled" if job.state is JobState.CANCELLED else "is asked to stop"
        click.echo(f"Job {job.id} {done}.")

    return command


def _retry(app: Quart) -> click.Command:
    @click.command("retry", help="Run a failed or cancelled job again, now.")
    @click.argument("job_id", metavar="ID")
    def command(job_id: str) -> None:
        click.echo(f"Job {do(app, jobs.retry, job_id).id} is queued again.")

    return command


def _arguments(kwargs: dict[str, Any] | None, texts: Sequence[str]) -> dict[str, Any]:
    """Texts become what the task's signature says, as they do from a form."""
    given = dict(kwargs or {})
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter("expected KEY=VALUE", param_hint="'--arg'")
        if name in given:
            raise click.BadParameter(f"{name} is given twice", param_hint="'--arg'")
        given[name] = value
    return given


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("expected text in UTF-8") from None
    return value


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _echo_table(page: Sequence[Job]) -> None:
    if not page:
        click.echo("No jobs.", err=True)
    else:
        click.echo(_row("id", "state", "tries", "accepted (UTC)", "queue", "task"))
    for job in page:
        at = f"{job.accepted_at:%Y-%m-%d %H:%M:%S}"
        click.echo(_row(job.id, job.state, str(job.attempt), at, job.queue, job.task))


def _row(*cells: str) -> str:
    widths = (36, 9, 5, 19, 12, 0)
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
