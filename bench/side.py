"""Sides of a comparison, measured in turn, so that what the machine does meanwhile meets all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """One of those compared: what it is called, and how one figure of it is measured."""

    name: str
    measure: Callable[[], float]


def interleaved(
    sides: Sequence[Side], rounds: int, say: Callable[[str], None]
) -> Mapping[str, Sequence[float]]:
    """A figure of each side for each round; who begins changes from round to round."""
    found: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        first = number % len(sides)
        for side in [*sides[first:], *sides[:first]]:
            found[side.name].append(side.measure())
            say(f"{side.name}: {found[side.name][-1]:,.4g}")
    return found
