"""Run the master for many customers: people sign in, nodes and instances show certificates.

Its settings are the section [slapos-master] of its settings file. On a machine that has nothing it
first makes what `slapos master init` makes. It says where it listens once it is ready, and ends on
SIGTERM.

examples:
  slapos master start
  slapos master start --cfg master.cfg

exit status: 0 ended as it was told, 1 failed or refused
"""

import argparse
import signal
from typing import NoReturn

from slapos.command.master_init import initialise
from slapos.command.master_options import add_master_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    # Imported here, so that `--help` does not wait for the web framework.
    from slapos.master.app import create_app  # noqa: PLC0415
    from slapos.master.traffic.logs import configure  # noqa: PLC0415
    from slapos.master.web.listening import listen, refuse_unsafe, url_of  # noqa: PLC0415
    from slapos.master.web.server import allow_connections, make_server  # noqa: PLC0415

    settings = initialise(arguments)
    configure(settings.log_format)
    refuse_unsafe(settings)
    allow_connections()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with listen(settings.host, settings.port, change="port in the settings file") as listener:
        app = create_app(settings)
        scheme = "https" if settings.certificate_file else "http"
        url = url_of(settings.host, listener.getsockname()[1], scheme)
        print(f"listening on {url}", flush=True)
        make_server(app).run(sockets=[listener])
    return 0


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
