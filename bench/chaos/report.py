"""What a run comes to, as one row of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.findings import Findings

_HEAD = (
    "fault", "system", "injected", "submitted", "accepted", "succeeded", "failed", "lost",
    "recorded twice", "no effect", "started again", "recovery s", "wait s", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """One run with one fault; `findings` is what the database said when it was over."""

    fault: str
    system: str
    injected: int
    submitted: int
    accepted: int
    findings: Findings
    seconds: float
    #: What became of the requests: statuses, and errors by name.
    answers: Mapping[str, int]
    #: How often a part ended by itself.
    exits: Mapping[str, int]
    folder: Path
    note: str = ""

    @property
    def is_good(self) -> bool:
        """Whether all that was accepted is recorded once, and nothing is as it must not be."""
        found = self.findings
        return not (found.lost or found.twice or found.broken) and self.accepted == self.submitted

    @property
    def row(self) -> list[str]:
        found = self.findings
        numbers = (
            self.injected, self.submitted, self.accepted, found.succeeded, found.failed,
            found.lost, found.twice, found.effectless, found.restarted,
        )  # fmt: skip
        times = (found.recovery[0], found.wait[0], self.seconds)
        texts = [*map(str, numbers), *(f"{seconds:.1f}" for seconds in times)]
        return [self.fault, self.system, *texts]

    @property
    def remarks(self) -> list[str]:
        """What the row has no room for."""
        found = self.findings
        said = [
            f"{len(jobs)} × {name}: {', '.join(jobs[:3])}" for name, jobs in found.broken.items()
        ]
        if found.recovery[1]:
            said.append(f"longest recovery: {found.recovery[0]:.1f} s, job {found.recovery[1]}")
        said.append(f"longest wait: {found.wait[0]:.1f} s, job {found.wait[1]}")
        said.append("answers: " + _counts(self.answers))
        if self.exits:
            said.append("exits nobody asked for: " + _counts(self.exits))
        return [*said, self.note] if self.note else said


def table(reports: Sequence[Report]) -> str:
    rows = [list(_HEAD), *(report.row for report in reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(
        cell.ljust(width) if n < 2 else cell.rjust(width) for n, (cell, width) in enumerate(cells)
    ).rstrip()


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in sorted(counts.items()))
