"""Every fault of `run.py chaos` once, to real processes: nothing is lost, nothing comes twice."""

import subprocess
import sys

import pytest

from bench.chaos.faults import FAULTS, possible
from bench.parts import mariadbd
from tests import real
from tests.conftest import missing


@pytest.mark.skipif(sys.platform != "linux", reason="chaos reads /proc")
@pytest.mark.timeout(420)
@pytest.mark.parametrize("database", ["sqlite", "mariadb"])
def test_with_every_fault_once_nothing_is_lost_and_nothing_comes_twice(database: str) -> None:
    if database == "mariadb" and not mariadbd():
        missing("MariaDB's server")
    faults = len(possible("mixed", database))
    words = ("--fault", "mixed", "--faults", str(faults), "--database", database)
    load = ("--jobs", "250", "--rate", "5", "--verbose")
    argv = real.python("bench.chaos", *words, *load)
    done = subprocess.run(argv, cwd=real.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{faults} faults, 250 accepted, 0 lost, 0 twice" in done.stdout
    assert len(FAULTS) >= faults > 12
