"""What was measured, what it is held against, and the arithmetic of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """A bound for the ratio to the peer, or for our own figure where there is none."""

    sign: Literal["≥", "≤"]
    bound: float

    def is_met(self, value: float, slack: float = 1.0) -> bool:
        """`slack` 4 lets a figure be four times as bad."""
        return value * slack >= self.bound if self.sign == "≥" else value <= self.bound * slack

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:,g}"


@dataclass(frozen=True)
class Line:
    """One comparison: a figure of ours for each round, and the peer's of the same rounds."""

    name: str
    unit: str
    ours: Sequence[float]
    goal: Goal | None = None
    peer: str = ""
    theirs: Sequence[float] = ()

    @property
    def ratios(self) -> list[float]:
        """Round by round: what slowed the machine down in one met both sides alike."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def judged(self) -> float:
        """What the goal is held against."""
        return median(self.ratios) if self.theirs else median(self.ours)

    def is_met(self, slack: float = 1.0) -> bool:
        return self.goal is None or self.goal.is_met(self.judged, slack)


def spread(values: Sequence[float]) -> float:
    """Half of the way from the least to the most, as a share of the median."""
    middle = median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)]
