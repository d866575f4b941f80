"""aiomysql that shows no password to a server without TLS; imported only where TLS is asked for."""

from typing import Any

from aiomysql import Connection
from pymysql.constants import CLIENT, CR
from pymysql.err import OperationalError


async def connect(**options: Any) -> Connection:
    """As `aiomysql.connect`, which of itself would go on in plain text."""
    connection = _Encrypted(**options)
    await connection._connect()
    return connection


class _Encrypted(Connection):
    async def _request_authentication(self) -> None:
        if not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, "the server does not encrypt")
        await super()._request_authentication()
