"""The way to MySQL and MariaDB, encrypted: the same for the web and for a worker."""

import gc
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from quart_app import migrations
from quart_app.app import create_app
from quart_app.db import Database
from tests import real
from tests.conftest import Place, missing

# aiomysql leaves a connection that was refused within its handshake to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
on_mariadb = pytest.mark.parametrize("places", ["mariadb"], indirect=True)

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
        openssl(folder, "req", "-x509", *_key(name), "-out", f"{name}.pem", "-subj", f"/CN={name}")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(folder, "req", *_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-extfile", "names",
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


@on_mariadb
async def test_a_server_without_tls_is_refused_when_the_url_asks_for_it(
    door: Door, place: Place, certificates: Path
) -> None:
    with pytest.raises(OperationalError, match=r"SSL|does not encrypt"):
        await cipher(door, f"{place.database_url}?ssl_ca={certificates}/ca.pem")


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
        create_app({"VAR_DIR": tmp_path, "DATABASE_URL": f"mysql://root@127.0.0.1/x?ssl_ca={file}"})


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def _key(name: str) -> list[str]:
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    return [*kind, "-keyout", f"{name}.key"]


def _of(certificates: Path) -> list[str]:
    files = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}
    return [f"--ssl-{part}={certificates}/{file}" for part, file in files.items()]
