"""A way to the database that is cut, held or closed when a test says so."""

import re
import select
import socket
import threading
from contextlib import closing, suppress

from sqlalchemy import make_url

_WRITES = re.compile(b"INSERT INTO|UPDATE (jobs|schedules)")


class Cutter(threading.Thread):
    """A proxy before MySQL that cuts a connection at the COMMIT of a change, once told to."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._server, parts = socket.create_server(("127.0.0.1", 0)), make_url(url)
        self._port, port = parts.port or 3306, self._server.getsockname()[1]
        #: The database by way of this proxy.
        self.url = parts.set(port=port).render_as_string(hide_password=False)
        #: "before" the server gets the COMMIT, or "after" it has answered; "away" from then on.
        #: When "late" the server gets it once `may_commit` is set.
        self.cut = ""
        self.is_away, self.may_commit = False, threading.Event()
        #: While `passes` is not set nothing does, and nothing is closed; `holds` tells of that.
        self.passes, self.holds = threading.Event(), threading.Event()
        self.passes.set()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        self.may_commit.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self, client: socket.socket) -> None:
        server, has_written = socket.create_connection(("127.0.0.1", self._port)), False
        with closing(client), closing(server):
            while not self.is_away:
                for ready in select.select([client, server], [], [], 0.2)[0]:
                    data = ready.recv(65536)
                    self._wait()
                    is_end = ready is client and b"COMMIT" in data
                    if is_end and has_written and self.cut:
                        self._cut(data, client, server)
                        return
                    has_written = not is_end and (has_written or bool(_WRITES.search(data)))
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)

    def _wait(self) -> None:
        if not self.passes.is_set():
            self.holds.set()
            self.passes.wait(20)

    def _cut(self, data: bytes, client: socket.socket, server: socket.socket) -> None:
        where, self.cut = self.cut, ""
        self.is_away = where.endswith("away")
        if where == "late":
            client.close()
            self.may_commit.wait(20)
        if where.startswith(("after", "late")):
            server.sendall(data)
            server.recv(65536)
