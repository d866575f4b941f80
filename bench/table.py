"""How the figures are shown: one table for people, one JSON object for programs."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.figures import Line, spread

_HEAD = ("name", "ours", "peer", "ratio", "goal", "")


def table(lines: Sequence[Line], slack: float = 1.0) -> str:
    rows = [_HEAD, *(_cells(line, slack) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "unit": line.unit,
            "ours": list(line.ours),
            "peer": line.peer or None,
            "theirs": list(line.theirs),
            "judged": line.judged,
            "goal": line.goal and str(line.goal),
            "met": line.is_met() if line.goal else None,
        }
        for line in lines
    ]


def _cells(line: Line, slack: float) -> tuple[str, ...]:
    peer = f"{line.peer} {_figure(line.theirs)}" if line.theirs else line.peer
    ratio = ""
    if line.theirs:
        ratio = f"{line.judged:.2f} ({min(line.ratios):.2f}–{max(line.ratios):.2f})"
    goal = str(line.goal or "")
    ours = f"{_figure(line.ours)} {line.unit}"
    return line.name, ours, peer, ratio, goal, _verdict(line, slack)


def _verdict(line: Line, slack: float) -> str:
    if line.goal is None:
        return ""
    if line.is_met():
        return "met"
    return "within the margin" if line.is_met(slack) else "MISSED"


def _figure(values: Sequence[float]) -> str:
    middle = median(values)
    shown = f"{middle:,.0f}" if abs(middle) >= 100 else f"{middle:.3g}"
    return f"{shown} ±{spread(values):.0%}" if len(values) > 1 else shown
