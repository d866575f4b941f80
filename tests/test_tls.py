"""The way to MySQL and MariaDB, encrypted: the same for the web and for a worker."""

import gc
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from bench.parts import redis_command
from quart_app import migrations
from quart_app.app import create_app
from quart_app.db import Database
from settings import broker_url
from tests import real
from tests.conftest import missing

# aiomysql leaves a connection that was refused within its handshake to the collector.
refuses = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
#: The greeting of a MySQL that does not encrypt, and wants the password as it is.
_GREETING = (
    b"\x0a8.0.30\0\x08\0\0\0abcdefgh\0\xff\xf7\xff\x02\0\x0f\x80\x15"
    + bytes(10)
    + b"abcdefghijkl\0mysql_clear_password\0"
)
WITHOUT_TLS = len(_GREETING).to_bytes(3, "little") + b"\0" + _GREETING

Door = Callable[[Database, Callable[[Session], Any]], Awaitable[Any]]


async def by_the_web(database: Database, verb: Callable[[Session], Any]) -> Any:
    return await database.run(verb)


async def by_a_worker(database: Database, verb: Callable[[Session], Any]) -> Any:
    with database.session() as session:
        return verb(session)


@pytest.fixture(params=[by_the_web, by_a_worker])
def door(request: pytest.FixtureRequest) -> Door:
    found: Door = request.param
    return found


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem` signed the server's and a client's; `other.pem` signed none."""
    if not shutil.which("openssl"):
        missing("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        openssl(
            folder, "req", "-x509", *_key(name), "-out", f"{name}.pem", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
    # Python 3.13 wants to be told whose key it was signed with.
    extensions = "subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid"
    (folder / "extensions").write_text(extensions)
    for name in ("server", "client"):
        openssl(folder, "req", *_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-extfile", "extensions",
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[str]:
    """Of a MariaDB that encrypts for whoever wants it to."""
    if not (server := real.mariadbd()):
        missing("mariadb-server")
    with real.mariadb(server or "", tmp_path_factory.mktemp("tls"), *_of(certificates)) as url:
        yield url


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.dispose()


async def cipher(door: Door, url: str) -> str:
    """What the connection is encrypted with; empty for plain text."""
    with opened(url) as database:
        try:
            status = text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            return str(await door(database, lambda session: session.execute(status).one()[1]))
        finally:
            await database.close()
            gc.collect()


async def test_what_the_url_says_of_tls_holds_for_both_doors(
    door: Door, url: str, certificates: Path
) -> None:
    assert await cipher(door, f"{url}?ssl_ca={certificates}/ca.pem")
    assert not await cipher(door, url)


@refuses
async def test_a_server_is_known_by_its_authority_and_by_its_name(
    door: Door, url: str, certificates: Path
) -> None:
    elsewhere = url.replace("127.0.0.1", "localhost")
    for refused in (
        f"{url}?ssl_ca={certificates}/other.pem",
        f"{elsewhere}?ssl_ca={certificates}/ca.pem",
    ):
        with pytest.raises(OperationalError):
            await cipher(door, refused)
    assert await cipher(door, f"{elsewhere}?ssl_ca={certificates}/ca.pem&ssl_check_hostname=false")


@refuses
async def test_a_client_may_show_a_certificate_of_its_own(
    door: Door, url: str, certificates: Path
) -> None:
    with opened(url) as database, database.session() as session:
        session.execute(text("CREATE OR REPLACE USER known@'127.0.0.1' REQUIRE X509"))
        session.execute(text("GRANT ALL ON *.* TO known@'127.0.0.1'"))
    as_known = url.replace("root@", "known@") + f"?ssl_ca={certificates}/ca.pem"
    with pytest.raises(OperationalError, match="Access denied"):
        await cipher(door, as_known)
    shown = f"&ssl_cert={certificates}/client.pem&ssl_key={certificates}/client.key"
    assert await cipher(door, as_known + shown)


@refuses
async def test_a_server_without_tls_is_told_nothing_when_the_url_asks_for_it(
    door: Door, certificates: Path
) -> None:
    told: list[bytes] = []

    def answer(client: socket.socket, _address: Any) -> None:
        with client:
            client.sendall(WITHOUT_TLS)
            told.append(client.recv(1024))

    with answering(answer) as port:
        url = f"mysql://root:hidden@127.0.0.1:{port}/test?ssl_ca={certificates}/ca.pem"
        with pytest.raises(OperationalError, match=r"SSL is required|does not encrypt"):
            await cipher(door, url)
    assert told == [b""]


@contextmanager
def answering(answer: Callable[[socket.socket, Any], None]) -> Iterator[int]:
    """A port of loopback where the first who comes is answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: answer(*server.accept()))
        thread.start()
        yield int(server.getsockname()[1])
        thread.join()


def test_migrations_are_encrypted_too(url: str, certificates: Path) -> None:
    with opened(url) as database, database.session() as session:
        session.execute(text("CREATE OR REPLACE USER secret@'127.0.0.1' REQUIRE SSL"))
        session.execute(text("GRANT ALL ON *.* TO secret@'127.0.0.1'"))
    as_secret = url.replace("root@", "secret@") + f"?ssl_ca={certificates}/ca.pem"
    with opened(as_secret) as database:
        assert migrations.upgrade(database) == migrations.current(database)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_is_no_certificate_is_named_at_the_start(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(SystemExit, match=r"DATABASE_URL: expected PEM files as ssl_ca"):
        made_with(tmp_path, f"ssl_ca={file}")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ssl_ca=", "ssl_ca: expected one of ssl_ca, "),
        ("charset=utf8mb4&ssl=true", "ssl: expected one of ssl_ca, "),
        ("charset=utf8mb4&colour=blue", "colour: expected one of ssl_ca, "),
        ("ssl_verify_cert=true", "ssl_verify_cert: expected one of ssl_ca, "),
        ("ssl_key=client.key", "ssl_key: expected ssl_cert beside it"),
    ],
)
def test_what_would_be_passed_over_is_refused_at_the_start(
    tmp_path: Path, query: str, said: str
) -> None:
    with pytest.raises(SystemExit, match=f"DATABASE_URL: {said}"):
        made_with(tmp_path, query)


def made_with(var: Path, query: str) -> None:
    create_app({"VAR_DIR": var, "DATABASE_URL": f"mysql://root@127.0.0.1/x?{query}"})


@pytest.fixture
def redis(certificates: Path, tmp_path: Path) -> Iterator[str]:
    """Where a Redis encrypts."""
    if not shutil.which("redis-server"):
        missing("redis-server")
    port = real.free_port()
    options = {
        "tls-port": str(port), "tls-auth-clients": "no",
        "tls-ca-cert-file": f"{certificates}/ca.pem",
        "tls-cert-file": f"{certificates}/server.pem", "tls-key-file": f"{certificates}/server.key",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with real.process([*redis_command(tmp_path, 0), *words], {}, tmp_path / "redis.log"):
        real.until(lambda: "Ready to accept" in (tmp_path / "redis.log").read_text())
        yield f"rediss://127.0.0.1:{port}/0"


def test_an_encrypted_redis_is_verified_by_all_who_speak_to_it(
    redis: str, certificates: Path, tmp_path: Path
) -> None:
    trusted = f"{redis}?ssl_ca_certs={certificates}/ca.pem"
    assert all(reached(tmp_path, trusted))
    assert not any(reached(tmp_path, redis))
    assert not any(reached(tmp_path, f"{redis}?ssl_ca_certs={certificates}/other.pem"))


def reached(var: Path, url: str) -> tuple[bool, bool]:
    """Whether what publishes and what consumes messages get through to this Redis."""
    app = create_app(
        {"VAR_DIR": var, "REDIS_URL": url, "CELERY_BROKER_URL": broker_url(url),
         "DATABASE_URL": f"sqlite:///{var}/x"}
    )  # fmt: skip
    publisher, celery = app.extensions["publisher"], app.extensions["celery"]
    try:
        publishes = _does(publisher.ping)
        with celery.connection_for_read() as connection:
            once = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
            return publishes, _does(lambda: connection.ensure_connection(**once))
    finally:
        publisher.close()


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def _key(name: str) -> list[str]:
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    return [*kind, "-keyout", f"{name}.key"]


def _of(certificates: Path) -> list[str]:
    files = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}
    return [f"--ssl-{part}={certificates}/{file}" for part, file in files.items()]


def _does(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:  # whatever the client of Redis or Celery makes of it
        return False
    return True
