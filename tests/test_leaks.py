"""A worker of each pool leaves no file open; `bench/leaks.py` does the same for longer."""

import pytest

from bench import leaks
from tests.conftest import needs


@pytest.mark.parametrize("pool", leaks.POOLS)
def test_no_file_is_left_open_by_five_hundred_tasks(pool: str) -> None:
    if pool == "gevent":
        needs("gevent")
    finding = leaks.measure(pool, tasks=500, warm_up=100)
    assert not finding.leaks_files, str(finding)
