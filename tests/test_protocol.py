"""A plain ASGI application: the same tests pass under every server."""

import json
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from quart_app.models import Role
from tests import real
from tests.conftest import Place, make_token

SERVERS = {
    "hypercorn": ("hypercorn", "asgi:app", "--bind", "{host}:{port}"),
    "hypercorn h2": (
        "hypercorn", "asgi:app", "--bind", "{host}:{port}",
        "--certfile", "{folder}/cert.pem", "--keyfile", "{folder}/key.pem",
    ),
    "uvicorn": ("uvicorn", "asgi:app", "--host", "{host}", "--port", "{port}"),
    "granian": (
        "granian", "asgi:app", "--interface", "asgi", "--host", "{host}", "--port", "{port}",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    """The application behind one server, and a caller with a token."""

    http: httpx.Client
    sockets: str
    token: str
    #: The certificate to trust, where it speaks TLS.
    certificate: Path | None

    def follow(self, job_id: str, token: str = "") -> tuple[list[dict[str, Any]], int | None]:
        """The frames of a job until the server closes the socket, and the code it does so with."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        tls = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        url = f"{self.sockets}/ws/jobs/{job_id}"
        with connect(url, additional_headers=headers, ssl=tls) as socket:
            return [json.loads(text) for text in frames_of(socket)], socket.close_code


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest, clean: Place, tmp_path: Path) -> Iterator[Served]:
    trusted = _certificate(tmp_path) if request.param == "hypercorn h2" else None
    tls = ssl.create_default_context(cafile=trusted) if trusted else True
    port = real.free_port()
    words = [
        word.format(host="127.0.0.1", port=port, folder=tmp_path) for word in SERVERS[request.param]
    ]
    token = make_token(clean.database, Role.OPERATOR)
    address = f"{'https' if trusted else 'http'}://127.0.0.1:{port}"
    with real.process(real.python(*words), clean.env, tmp_path / "log"), httpx.Client(
        base_url=address, http2=bool(trusted), verify=tls,
        headers={"Authorization": f"Bearer {token}"},
    ) as http:  # fmt: skip
        real.until(lambda: _answers(http))
        yield Served(http, address.replace("http", "ws", 1), token, trusted)


def frames_of(socket: ClientConnection) -> Iterator[str | bytes]:
    """Until it is closed, with whatever code."""
    with suppress(ConnectionClosed):
        while True:
            yield socket.recv(timeout=30)


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _certificate(folder: Path) -> Path:
    """A self-signed one for 127.0.0.1, with its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "quartermaster test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *private))
    return folder / "cert.pem"


def test_http_websocket_and_lifespan_work_under_each_server(served: Served, worker: Path) -> None:
    body = {"task": "tests.sample_tasks.count", "kwargs": {"steps": 3}}
    job_id = served.http.post("/api/jobs", json=body).json()["id"]
    frames, code = served.follow(job_id)
    assert [frame["seq"] for frame in frames if "seq" in frame] == [1, 2, 3, 4, 5, 6]
    assert (frames[-1]["state"], code) == ("succeeded", 1000)
    ready = served.http.get("/readyz")
    assert ready.json()["parts"]["broker"] == "ok"
    assert ready.http_version == ("HTTP/2" if served.certificate else "HTTP/1.1")


def test_a_refusal_has_its_code_under_each_server(served: Served) -> None:
    assert served.follow("of-nobody") == ([], 4404)
    assert served.follow("of-nobody", token="qm_of_nobody") == ([], 4401)
