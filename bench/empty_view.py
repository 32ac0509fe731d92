"""A web application that does nothing, served as our master is: what its answers cost at least."""

import socket
import sys

import uvicorn
from flask import Flask

from slapos.master.web.gateway import Gateway
from slapos.master.web.server import configure
from slapos.master.web.workers import Workers


def main(port: int) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "")
    listener = socket.create_server(("127.0.0.1", port))
    uvicorn.Server(configure(Gateway(app, Workers("request", 8)))).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]))
