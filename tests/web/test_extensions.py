"""What an application brings of its own: the example of the README, really run."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import real
from tests.conftest import Place
from tests.test_cli import run
from tests.web.conftest import serving

OWN: dict[str, Any] = {
    "EXTENSIONS": "orders",
    "CELERY_IMPORTS": "tasks.scheduler,tasks.background,orders",
    "PYTHONPATH": str(real.ROOT / "examples" / "orders"),
}
QUART = real.python("quart", "--app", "asgi")


def test_an_extension_brings_views_a_table_a_command_and_a_task(
    clean: Place, tmp_path: Path, secret: str
) -> None:
    env = clean.env | OWN
    assert run([*QUART, "create-orders"], env) == (0, "", "")
    with serving(clean, tmp_path / "web", **OWN) as web, real.worker(env, tmp_path / "worker"):
        orders, headers = f"{web.address}/orders", {"Authorization": f"Bearer {secret}"}
        assert httpx.post(orders, json={"name": "Ada"}).status_code == 401
        assert problem(httpx.post(orders, json={}, headers=headers)) == (422, "name")
        before = httpx.get(orders).json()["shipped"]
        answer = httpx.post(orders, json={"name": "Ada"}, headers=headers)
        assert answer.status_code == 202
        real.until(lambda: httpx.get(orders).json()["shipped"] == before + 1)
        job = httpx.get(f"{web.address}{answer.headers['Location']}", headers=headers).json()
        assert (job["task"], job["state"]) == ("orders.ship", "succeeded")
        described = httpx.get(f"{web.address}/openapi.json", headers=headers).json()
        assert set(described["paths"]["/orders"]) == {"get", "post"}


def problem(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["field"]


@pytest.mark.parametrize(
    ("name", "said"), [("no_such", "there is no such module"), ("json", "AttributeError: ")]
)
def test_an_extension_that_is_none_is_said_in_one_line(clean: Place, name: str, said: str) -> None:
    code, out, err = run([*QUART, "tokens", "list"], clean.env | {"EXTENSIONS": name})
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"EXTENSIONS = '{name}': {said}")
