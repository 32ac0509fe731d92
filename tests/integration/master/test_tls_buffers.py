"""What a TLS connection to the web server keeps in memory, and that much still comes through."""

import gc
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from pathlib import Path
from typing import Any

from slapos.master.settings import Settings
from slapos.master.web.tls import READ_AT_ONCE
from tests.integration.master.test_tls_server import Machine, application
from tests.integration.master.web_server import answer_of, served

LARGE = 20 * READ_AT_ONCE


def test_a_silent_connection_has_a_small_buffer_and_large_requests_come_whole(
    settings: Settings, tmp_path: Path
) -> None:
    app = application(settings, tmp_path, tls=True)

    def count(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Say how much has come, and as much more."""
        content = b"%d" % len(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Length", str(LARGE))])
        return [content.ljust(LARGE)]

    app.wsgi_app = count  # type: ignore[method-assign]
    machine = Machine.join(app, tmp_path / "edge")
    context = ssl.create_default_context(cafile=str(machine.folder / "authority.pem"))
    context.load_cert_chain(machine.folder / "certificate.pem", machine.folder / "key.pem")
    head = f"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n".encode()
    with (
        served(app) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        for _ in range(2):  # the buffer does not grow by what has come
            connection.sendall(head + b"x" * LARGE)
            answer = answer_of(connection)
            assert len(answer.partition(b"\r\n\r\n")[2]) == LARGE
            assert answer.rstrip().endswith(str(LARGE).encode())
        # Which asyncio keeps to itself: where that changes, what a node costs has to be looked at.
        protocols: list[Any] = [each for each in gc.get_objects() if type(each) is SSLProtocol]
        buffers = [len(each._ssl_buffer) for each in protocols]
    assert buffers
    assert max(buffers) == READ_AT_ONCE
