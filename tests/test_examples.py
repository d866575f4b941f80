"""The examples, really started."""

from pathlib import Path

import httpx

from tests import real

EXAMPLES = real.ROOT / "examples"


def test_a_flask_app_goes_on_beside_quart(tmp_path: Path) -> None:
    address = f"127.0.0.1:{real.free_port()}"
    argv = real.python("hypercorn", "app:app", "-w", "0", "--bind", address)
    log = tmp_path / "log"
    with real.process(argv, {}, log, cwd=EXAMPLES / "mount_flask"):
        real.until(lambda: "Running on" in log.read_text())
        assert httpx.get(f"http://{address}/old/hello").text == "Hello from Flask"
        assert httpx.get(f"http://{address}/hello").text == "Hello from Quart"
        assert httpx.get(f"http://{address}/old/hell").status_code == 404
