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
_HELP = """Puts real processes under load, has something go wrong every second or two, and counts
what was accepted, lost and recorded twice.

Redis, a database, two webs, two workers of two children and two beats run in a folder of their own
and start again when they end. Each job's effect is one row with nothing to keep it unique. When the
faults are over, all that was accepted has to come to its end; then the invariants of the ledger are
checked. Exits 1 when a job was lost or recorded twice, or an invariant is broken.

\b
Faults (SIGKILL is followed by a restart, SIGSTOP by SIGCONT):
  web-kill, worker-kill, beat-kill   SIGKILL of one's main process
  worker-kill-all, child-kill        of a worker with its pool, of one of the pool
  web-freeze, beat-freeze            SIGSTOP for 2 to 8 s
  worker-freeze, child-freeze        for 5 to 25 s: longer than a job's lease
  redis-kill, redis-kill-empty       back in 0.2 to 2 s with its append-only file, without
  redis-flush, redis-freeze          FLUSHALL; SIGSTOP for 1 to 6 s
  db-kill, db-freeze                 the same for MariaDB
  disk-full                          no room for Redis and SQLite for 1 to 5 s; needs root
  clock-jump                         of one process, by up to two hours, for 5 to 25 s;
                                     needs a C compiler and MariaDB
  mixed                              each time another one of these
"""


@click.command("chaos", help=_HELP, context_settings={"show_default": True})
@click.option(
    "--fault",
    "names",
    multiple=True,
    type=click.Choice(_NAMES),
    metavar="NAME",
    help="May be repeated; all of them in turn if not given.",
)
@click.option("--jobs", default=Load.jobs, type=click.IntRange(1))
@click.option(
    "--faults",
    default=Load.faults,
    type=click.IntRange(0),
    help="At most: they end when the jobs are through.",
)
@click.option(
    "--rate", default=Load.rate, type=click.FloatRange(0.1), help="Jobs submitted a second."
)
@click.option("--task-ms", default=Load.task_ms, type=click.IntRange(0), help="What a task takes.")
@click.option(
    "--patience",
    default=Load.patience,
    help="Seconds without any job's end, after the faults, until the rest counts as lost.",
)
@click.option(
    "--database", type=click.Choice(["mariadb", "sqlite"]), help="The first that is here."
)
@click.option("--seed", type=int, help="Of the faults; made up and shown if not given.")
@click.option(
    "--plain-celery",
    is_flag=True,
    help="Each again on plain Celery, by default and with its best settings.",
)
@click.option(
    "--keep", is_flag=True, help="Keeps the folder and logs of each run, not only of bad ones."
)
@click.option("--verbose", is_flag=True, help="A line for each single fault.")
def main(names: tuple[str, ...], plain_celery: bool, **options: Any) -> None:
    database = _database(options["database"])
    seed = SystemRandom().randrange(10**6) if options["seed"] is None else options["seed"]
    load = Load(**{name: options[name] for name in Load.__dataclass_fields__})
    systems = (OURS, PLAIN, BEST) if plain_celery else (OURS,)
    click.echo(f"seed {seed}, {database}, {load.jobs} jobs at {load.rate:g} a second")
    wanted = names or _NAMES
    for name in faults.FAULTS if faults.MIXED in wanted else wanted:
        if why := faults.why_not(name, database):
            click.echo(f"left out: {name}. {why}")
    reports = []
    for name, system in itertools.product(wanted, systems):
        if not faults.possible(name, database):
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
    main(prog_name="python3 run.py chaos")
