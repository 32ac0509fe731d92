"""Run the master with its local profile: for one person on one machine, without sign-in.

It listens on this machine only. Its settings are the sections [slapos], [slapproxy] and
[multimaster/URL] of the configuration file; options come before them. It says where it listens
once it is ready, and ends on SIGTERM.

examples:
  slapos proxy start --cfg slapos.cfg
  slapos proxy start -u /var/lib/slapos/proxy.db --port 0
"""

import argparse
import ipaddress
import logging
import signal
import socket
from typing import NoReturn

from slapos.command.proxy_options import add_proxy_arguments, proxy_settings
from slapos.protocol.errors import InvalidConfiguration, SlapOSError

#: Connections that wait to be taken up.
BACKLOG = 1024


class CannotListen(SlapOSError):
    """The address cannot be listened on."""

    code = "cannot_listen"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_proxy_arguments(parser)
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (5000); 0 for any free one")
    parser.add_argument(
        "--local-software-release-root",
        metavar="DIRECTORY",
        help="folder of local releases; when it is another one than last time, the releases below "
        "it are looked for in the new one",
    )
    parser.add_argument(
        "--unsafe-listen-beyond-loopback",
        action="store_true",
        help="listen on an address that other machines reach, although there is no sign-in: "
        "whoever reaches it can run programs on your nodes",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    # Imported here, so that `--help` does not wait for the web framework.
    from slapos.master.app import create_app  # noqa: PLC0415
    from slapos.master.web.server import allow_connections, make_server  # noqa: PLC0415

    settings = proxy_settings(arguments)
    if not arguments.unsafe_listen_beyond_loopback:
        _refuse_beyond_loopback(settings.host)
    _quiet_libraries()
    allow_connections()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with _listening(settings.host, settings.port) as listener:
        app = create_app(settings)
        print(f"listening on {_url(settings.host, listener.getsockname()[1])}", flush=True)
        make_server(app).run(sockets=[listener])
    return 0


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {host} port {port}: {error.strerror}; end the program that uses "
            "the port, or give another one with --port"
        ) from error


def _refuse_beyond_loopback(host: str) -> None:
    try:
        safe = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        safe = False
    if not safe:
        raise InvalidConfiguration(
            f"{host} can be reached from other machines, and this master has no sign-in: whoever "
            "reaches it can run programs on your nodes. Listen on 127.0.0.1 or ::1, or accept "
            "that with --unsafe-listen-beyond-loopback"
        )


def _quiet_libraries() -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
