"""A full master on a database that is there, in one process and without TLS; for benchmarks."""

import socket
import sys

import uvicorn

from slapos.master.app import create_app
from slapos.master.settings import Profile, Settings, database_url
from slapos.master.web.gateway import Gateway
from slapos.master.web.server import configure
from slapos.master.web.workers import Workers


def main(url: str, port: int) -> None:
    settings = Settings(database_url=database_url(url), profile=Profile.FULL)
    listener = socket.create_server(("127.0.0.1", port))
    gateway = Gateway(create_app(settings), Workers("request", settings.threads))
    uvicorn.Server(configure(gateway)).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
