"""The bench: what it makes of figures, how it shows them, and that a row runs; never how fast."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.figures import Goal, Line, percentile, spread
from bench.parts import ROOT, environment, python
from bench.side import Side, interleaved
from bench.table import as_json, table


def line(ours: Sequence[float], theirs: Sequence[float] = (), goal: Goal | None = None) -> Line:
    return Line("post", "jobs/s", ours, goal, "Flask" if theirs else "", theirs)


def test_a_ratio_is_taken_round_by_round_and_its_median_is_judged() -> None:
    found = line([100, 10, 90], [50, 5, 60])
    assert found.ratios == [2.0, 2.0, 1.5]
    assert found.judged == 2.0


def test_a_figure_without_a_peer_is_judged_by_its_own_median() -> None:
    assert line([3, 1, 50]).judged == 3


@pytest.mark.parametrize(
    ("goal", "just_met", "missed"),
    [(Goal("≥", 2.0), 2.0, 1.99), (Goal("≤", 40), 40, 40.1)],
)
def test_a_goal_is_met_up_to_its_bound(goal: Goal, just_met: float, missed: float) -> None:
    assert goal.is_met(just_met)
    assert not goal.is_met(missed)


def test_wide_margins_forgive_what_is_slow_and_not_what_is_broken() -> None:
    assert line([25], [100], Goal("≥", 1.0)).is_met(slack=4)
    assert not line([24], [100], Goal("≥", 1.0)).is_met(slack=4)
    assert line([160], goal=Goal("≤", 40)).is_met(slack=4)
    assert not line([161], goal=Goal("≤", 40)).is_met(slack=4)


def test_the_spread_is_half_of_the_way_from_the_least_to_the_most() -> None:
    assert spread([90, 100, 130]) == pytest.approx(0.2)
    assert spread([5]) == 0


def test_a_percentile_is_a_value_that_so_many_do_not_exceed() -> None:
    hundred = list(range(100, 0, -1))
    assert percentile(hundred, 0.5) == 50
    assert percentile(hundred, 0.99) == 99
    assert percentile([7], 0.99) == 7
    assert percentile([1, 2, 3], 0.5) == 2


def test_the_sides_take_turns_and_another_one_begins_each_round() -> None:
    order: list[str] = []

    def side(name: str) -> Side:
        return Side(name, lambda: order.append(name) or float(len(order)))  # type: ignore[func-returns-value]

    found = interleaved([side("a"), side("b"), side("c")], 3, lambda _: None)
    assert "".join(order) == "abcbcacab"
    assert found["a"] == [1, 6, 8]


def test_the_table_says_which_goals_are_met() -> None:
    lines = [
        line([1_200, 1_000, 1_100], [500, 500, 500], Goal("≥", 2.0)),
        Line("context", "µs", [50], Goal("≤", 40)),
        Line("list", "ms", [3]),
    ]
    head, post, context, listing = table(lines).splitlines()
    assert head.split() == ["name", "ours", "peer", "ratio", "goal"]
    assert "1,100 ±9% jobs/s" in post
    assert "Flask 500 ±0%" in post
    assert "2.20 (2.00–2.40)" in post
    assert post.endswith("met")
    assert context.endswith("MISSED")
    assert listing.endswith("ms")
    assert "within the margin" in table(lines, slack=2)
    assert [each["met"] for each in as_json(lines)] == [True, False, None]


def test_a_quick_run_of_one_row_says_what_it_found(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    argv = python("bench", "context", "--quick", "--json", str(file))
    done = subprocess.run(
        argv, cwd=ROOT, env=environment({}), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()[5]) == (0, "context"), done.stderr
    assert json.loads(file.read_text())[0]["name"] == "context"


def test_an_unknown_row_is_refused_with_those_there_are() -> None:
    argv = python("bench", "speed")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'post'" in done.stderr
