"""One web process: `python -m slapos.master.web.process SETTINGS-FILE LISTENER CONTROL`.

LISTENER and CONTROL are numbers of open files: the socket that it listens on, and the one on which
it says that it does; when the other end of that is closed, it ends.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sqlalchemy import make_url

from slapos.master import presence
from slapos.master.app import create_app
from slapos.master.full_settings import read_full_settings
from slapos.master.traffic.logs import configure
from slapos.master.web.fleet import READY
from slapos.master.web.listening import check_certificate, refuse_unsafe
from slapos.master.web.server import Server, allow_connections, make_server
from slapos.protocol.errors import SlapOSError
from slapos.system.settings import read_configuration

logger = logging.getLogger(__name__)


def main(words: Sequence[str]) -> int:
    """Serve until SIGTERM, SIGHUP, or the end of what has started it."""
    path, listener, control = Path(words[0]), int(words[1]), int(words[2])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        settings = read_full_settings(read_configuration(path), path.parent)
        configure(settings.log_format)
        refuse_unsafe(settings)
        check_certificate(settings)
        allow_connections()
        with presence.at_work(make_url(settings.database_url)):
            _serve(make_server(create_app(settings)), listener, control)
    except (SlapOSError, OSError) as error:
        logger.error("%s", error)
        return 1
    return 0


def _serve(server: Server, listener: int, control: int) -> None:
    with socket.socket(fileno=listener) as listens, socket.socket(fileno=control) as controls:
        controls.setblocking(False)
        server.when_started = lambda: _follow(server, controls)
        server.run(sockets=[listens])


def _follow(server: Server, control: socket.socket) -> None:
    """Say that the server listens, and end it when it is told."""
    loop = asyncio.get_running_loop()
    control.send(READY)

    def gone() -> None:
        loop.remove_reader(control)
        server.should_exit = True

    loop.add_reader(control, gone)
    loop.add_signal_handler(signal.SIGHUP, server.leave)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
