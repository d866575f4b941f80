"""`python3 run.py chaos`: a table of faults, and what became of the jobs meanwhile."""

import itertools
import shutil
import signal
import sys
import time
from pathlib import Path
from random import SystemRandom
from typing import Any

import click

from bench import parts
from bench.chaos import faults
from bench.chaos.disk import NotPermitted
from bench.chaos.report import Report, table
from bench.chaos.runs import Load, run
from bench.chaos.systems import BEST, OURS, PLAIN

_NAMES = [*faults.FAULTS, faults.MIXED]


@click.command(
    "chaos",
    help="Starts Redis, a database, two webs, two workers and two beats, each a process of its"
    " own, submits jobs whose effect is one row each, has something go wrong every second or two,"
    " and counts what was accepted, lost and recorded twice. Exits 1 when anything was, or when an"
    " invariant of the ledger is broken."
    "\n\nFaults: " + ", ".join(_NAMES) + ".",
)
@click.option(
    "--fault",
    "names",
    multiple=True,
    type=click.Choice(_NAMES),
    metavar="NAME",
    help="One fault, or several; all of them in turn if not given.",
)
@click.option("--jobs", default=2000, show_default=True, type=click.IntRange(1))
@click.option(
    "--faults",
    default=25,
    show_default=True,
    type=click.IntRange(0),
    help="How many, at most: they end when the jobs are through.",
)
@click.option("--rate", default=100.0, show_default=True, help="Jobs a second.")
@click.option("--task-ms", default=20, show_default=True, help="What a task takes.")
@click.option(
    "--database",
    type=click.Choice(["sqlite", "mariadb"]),
    help="MariaDB if it is installed, else SQLite.",
)
@click.option("--seed", type=int, help="Of the faults; one is made up and shown if not given.")
@click.option(
    "--patience",
    default=90.0,
    show_default=True,
    help="Seconds without any job's end, after the faults, until the rest is lost.",
)
@click.option(
    "--plain-celery",
    is_flag=True,
    help="Each again on plain Celery, by default and with its best settings.",
)
@click.option("--keep", is_flag=True, help="Keeps the folder of each run, with its logs.")
@click.option("--verbose", is_flag=True, help="A line for each single fault.")
def main(names: tuple[str, ...], plain_celery: bool, **options: Any) -> None:
    database = _database(options["database"])
    seed = SystemRandom().randrange(10**6) if options["seed"] is None else options["seed"]
    load = Load(**{name: options[name] for name in Load.__dataclass_fields__})
    systems = (OURS, PLAIN, BEST) if plain_celery else (OURS,)
    click.echo(f"seed {seed}, {database}, {load.jobs} jobs at {load.rate:g} a second")
    reports = []
    for name, system in itertools.product(names or _NAMES, systems):
        if not faults.possible(name, database):
            click.echo(f"{name}: SQLite has no server that could be hurt")
            continue
        try:
            report = run(
                name, load, seed=seed, database=database, system=system, keep=options["keep"],
                say=click.echo if options["verbose"] else _silent,
            )  # fmt: skip
        except NotPermitted as problem:
            click.echo(f"{name}: no disk could be mounted for it ({problem})")
            continue
        _show(report, options["keep"])
        reports.append(report)
    click.echo("\n" + table(reports))
    ours = [report for report in reports if report.system.startswith(OURS.name)]
    sys.exit(0 if all(report.is_good for report in ours) else 1)


def _database(wanted: str | None) -> str:
    if not Path("/proc/self/task").exists():
        raise click.ClickException("chaos needs Linux: it looks for pool processes in /proc.")
    there = parts.mariadbd() and shutil.which("mariadb-install-db")
    if wanted == "mariadb" and not there:
        raise click.ClickException("no MariaDB server here: install one, or use --database sqlite")
    return wanted or ("mariadb" if there else "sqlite")


def _show(report: Report, kept: bool) -> None:
    found = report.findings
    verdict = "ok" if report.is_good else "NOT OK"
    click.echo(
        f"{time.strftime('%H:%M:%S')}  {report.fault}, {report.system}: {verdict},"
        f" {report.injected} faults, {report.accepted} accepted, {found.lost} lost,"
        f" {found.twice} twice, {report.seconds:.0f} s"
    )
    for remark in report.remarks:
        click.echo(f"          {remark}")
    if kept or not report.is_good:
        click.echo(f"          kept in {report.folder}")


def _silent(_: str) -> None:
    pass


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    main()
