"""A full master with a Flask view beside it that does nothing, in the same server.

    python -m bench.full_server DATABASE-URL SECRET-FILE PORT [front]

It speaks TLS, but plain HTTP when the secret file is `-`, and behind a web server of this machine
(`front`), whose word on the client's certificate it takes. The view at /empty is a bare Flask
application's: nothing of ours is around it but the web server.
"""

import logging
import os
import socket
import sys
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from flask import Flask

from slapos.master.app import create_app
from slapos.master.settings import Profile, Settings, database_url
from slapos.master.web.server import make_server

EMPTY = "/empty"
PLAIN = "-"
FRONT = "front"


def main(url: str, secret: str, port: int, front: str = "") -> None:
    logging.basicConfig(level=logging.INFO, filename=os.devnull)  # written, as it is in earnest
    app = create_app(
        Settings(
            database_url=database_url(url),
            profile=Profile.FULL,
            secret_file=None if secret == PLAIN else Path(secret),
            tls=secret != PLAIN and front != FRONT,
            trusted_proxies=(ip_network("127.0.0.1"),) if front == FRONT else (),
        )
    )
    bare, ours = Flask("bare"), app.wsgi_app
    bare.add_url_rule(EMPTY, view_func=lambda: "")

    def either(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked: Any = bare if environ["PATH_INFO"] == EMPTY else ours
        answer: Iterable[bytes] = asked(environ, start_response)
        return answer

    app.wsgi_app = either  # type: ignore[method-assign]
    server = make_server(app)
    server.run(sockets=[socket.create_server(("127.0.0.1", port))])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
