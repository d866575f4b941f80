"""`python3 run.py bench`: how fast it is, beside its peers, in one table."""

import json
import signal
import sys
from pathlib import Path

import click

from bench.figures import Line
from bench.rows import ROWS
from bench.run import Run
from bench.table import as_json, table

#: By how much a quick run lets a figure miss its goal: it finds what is broken, not what is slow.
_QUICK_SLACK = 100.0
_HELP = """Measures how fast Quartermaster is, beside its peers, on this machine.

NAME is one of: {names}; all of them if none is given.

MariaDB and Redis run in a folder of their own, the peers in virtual environments of their own.
Sides take turns, round by round; shown are medians, with half of the way from the least to the
most. Exits 1 when a goal is missed.
"""


@click.command("bench", help=_HELP.format(names=", ".join(ROWS)))
@click.argument("names", nargs=-1, type=click.Choice(list(ROWS)), metavar="[NAME]...")
@click.option("--rounds", default=Run.rounds, type=click.IntRange(1), show_default=True)
@click.option(
    "--seconds", default=Run.seconds, type=click.FloatRange(0.1), show_default=True,
    help="How long one figure takes; some have a bound of their own.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="One short round with few peers and wide margins.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also writes all figures.")
def main(
    names: tuple[str, ...], rounds: int, seconds: float, quick: bool, file: Path | None
) -> None:
    slack = _QUICK_SLACK if quick else 1.0
    lines: list[Line] = []
    with Run(1, min(seconds, 1.0), quick) if quick else Run(rounds, seconds) as run:
        for name in names or ROWS:
            click.echo(name, err=True)
            lines += ROWS[name](run)
    click.echo(table(lines, slack))
    if file:
        file.write_text(json.dumps(as_json(lines), ensure_ascii=False, indent=1))
    sys.exit(0 if all(line.is_met(slack) for line in lines) else 1)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    main(prog_name="python3 run.py bench")
