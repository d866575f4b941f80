"""Holds the locked requirements against pyproject.toml and against what is installed."""

import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from quart_app import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
DEV = RUN + [Requirement(line) for line in PROJECT["dependency-groups"]["dev"]]

both_files = pytest.mark.parametrize(
    ("wanted", "file"), [(RUN, "requirements.txt"), (DEV, "requirements-dev.txt")]
)


@both_files
def test_everything_wanted_is_pinned_at_a_version_it_admits(
    wanted: list[Requirement], file: str
) -> None:
    pins = pinned(file)
    refused = [str(one) for one in wanted if not one.specifier.contains(version(pins, one))]
    assert refused == []


@both_files
def test_every_line_pins_one_version_exactly(wanted: list[Requirement], file: str) -> None:
    operators = {part.operator for pin in pinned(file).values() for part in pin.specifier}
    assert operators == {"=="}
    assert all(len(pin.specifier) == 1 for pin in pinned(file).values())


@both_files
def test_the_pins_are_what_is_needed_no_less_and_no_more(
    wanted: list[Requirement], file: str
) -> None:
    here = {name for name, pin in pinned(file).items() if holds(pin, "")}
    assert {canonicalize_name(one.name) for one in closure(wanted)} == here


@both_files
def test_the_pins_admit_one_another(wanted: list[Requirement], file: str) -> None:
    pins = pinned(file)
    needs = closure(wanted)
    assert [str(one) for one in needs if not one.specifier.contains(version(pins, one))] == []


@both_files
def test_what_is_installed_is_what_is_pinned(wanted: list[Requirement], file: str) -> None:
    pins = {name: pin for name, pin in pinned(file).items() if holds(pin, "")}
    installed = {name: distribution(name).version for name in pins}
    assert installed == {name: version(pins, pin) for name, pin in pins.items()}


def test_developing_uses_the_very_versions_that_run() -> None:
    developing = {name: str(pin) for name, pin in pinned("requirements-dev.txt").items()}
    running = {name: str(pin) for name, pin in pinned("requirements.txt").items()}
    assert running.items() <= developing.items()


def test_the_code_knows_its_version() -> None:
    assert PROJECT["project"]["version"] == __version__


def pinned(file: str) -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {canonicalize_name(pin.name): pin for pin in pins}


def version(pins: dict[str, Requirement], wanted: Requirement) -> str:
    (pin,) = pins[canonicalize_name(wanted.name)].specifier
    return pin.version


def holds(one: Requirement, extra: str) -> bool:
    return one.marker is None or one.marker.evaluate({"extra": extra})


def closure(wanted: list[Requirement]) -> list[Requirement]:
    """Every requirement that follows from `wanted` in this environment, from installed metadata."""
    found: dict[str, Requirement] = {}
    waiting = [one for one in wanted if holds(one, "")]
    while waiting:
        one = waiting.pop()
        if str(one) not in found:
            found[str(one)] = one
            waiting += needs_of(one)
    return list(found.values())


def needs_of(one: Requirement) -> list[Requirement]:
    lines = distribution(one.name).requires or []
    extras = ["", *one.extras]
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if any(holds(need, extra) for extra in extras)]
