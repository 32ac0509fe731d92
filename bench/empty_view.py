"""A web application that does nothing, served as our master is: what its answers cost at least."""

import sys

from flask import Flask
from waitress import serve


def main(port: int) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "")
    serve(app, host="127.0.0.1", port=port, threads=8)


if __name__ == "__main__":
    main(int(sys.argv[1]))
