"""Run the master with its local profile: for one person on one machine, without sign-in.

It listens on this machine only. Its settings are the sections [slapos], [slapproxy] and
[multimaster/URL] of the configuration file; options come before them. It says where it listens
once it is ready, and ends on SIGTERM.

examples:
  slapos proxy start --cfg slapos.cfg
  slapos proxy start -u /var/lib/slapos/proxy.db --port 0
"""

import argparse
import logging
import signal
from typing import NoReturn

from slapos.command.proxy_options import add_proxy_arguments, proxy_settings
from slapos.protocol.errors import InvalidConfiguration


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
    from slapos.master.web.listening import listen, url_of  # noqa: PLC0415
    from slapos.master.web.server import allow_connections, make_server  # noqa: PLC0415

    settings = proxy_settings(arguments)
    if not arguments.unsafe_listen_beyond_loopback:
        _refuse_beyond_loopback(settings.host)
    _quiet_libraries()
    allow_connections()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with listen(settings.host, settings.port, change="--port") as listener:
        app = create_app(settings)
        print(f"listening on {url_of(settings.host, listener.getsockname()[1])}", flush=True)
        make_server(app).run(sockets=[listener])
    return 0


def _refuse_beyond_loopback(host: str) -> None:
    from slapos.master.web.listening import is_loopback  # noqa: PLC0415 - not for `--help`

    if not is_loopback(host):
        raise InvalidConfiguration(
            f"{host} can be reached from other machines, and this master has no sign-in: whoever "
            "reaches it can run programs on your nodes. Listen on 127.0.0.1 or ::1, or accept "
            "that with --unsafe-listen-beyond-loopback"
        )


def _quiet_libraries() -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
