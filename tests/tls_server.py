"""A server of HTTP over TLS, for tests: who is not trusted is told so, and waits for nobody."""

import ssl
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any


class TlsServer(ThreadingHTTPServer):
    """Speaks TLS when there is a `context`; it may be exchanged while it runs."""

    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        spare = request.dup()
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except (ssl.SSLError, OSError):
            with suppress(OSError):  # closed with unread data, the alert would not arrive
                while spare.recv(10_000):
                    continue
            return
        finally:
            spare.close()
        with wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that has given up is what a test wants."""
