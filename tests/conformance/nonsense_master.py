"""A master that answers "I'm a teapot" to everything: no test may pass with it.

Usage: nonsense_master.py proxy start --cfg FILE
"""

import configparser
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Teapot(BaseHTTPRequestHandler):
    """Answers 418."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(418)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer  # noqa: N815 (http.server looks for these names)

    def version_string(self) -> str:
        return "Teapot"

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    parser = configparser.RawConfigParser()
    parser.read(sys.argv[4])
    address = ("127.0.0.1", parser.getint("slapproxy", "port"))
    ThreadingHTTPServer(address, Teapot).serve_forever()
