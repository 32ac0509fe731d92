"""Run the master for many customers: people sign in, nodes and instances show certificates.

Its settings are the section [slapos-master] of its settings file. On a machine that has nothing it
first makes what `slapos master init` makes. It says where it listens once all its web processes
are ready, and starts those again that die. SIGTERM ends it, after what is being answered; SIGHUP
replaces the web processes one after the other, with new settings (but for host, port and workers),
certificates and code, and no request is lost.

examples:
  slapos master start
  slapos master start --cfg master.cfg

exit status: 0 ended as it was told, 1 failed or refused
"""

import argparse
import asyncio
import sys
from functools import partial

from slapos.command.master_init import initialise
from slapos.command.master_options import add_master_arguments, master_configuration, opened_master
from slapos.system.service_manager import ServiceManager
from slapos.system.settings import environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    # Imported here, so that `--help` does not wait for the database library.
    from slapos.master.initialise import first_link  # noqa: PLC0415
    from slapos.master.traffic.logs import configure  # noqa: PLC0415
    from slapos.master.traffic.metrics import forget_process, shared_by_processes  # noqa: PLC0415
    from slapos.master.web.fleet import Fleet  # noqa: PLC0415
    from slapos.master.web.listening import (  # noqa: PLC0415
        check_certificate,
        listen,
        own_url,
        refuse_unsafe,
        url_of,
    )

    settings = initialise(arguments)
    configure(settings.log_format)
    refuse_unsafe(settings)
    check_certificate(settings)
    words = [
        sys.executable,
        "-m",
        "slapos.master.web.process",
        str(master_configuration(arguments)),
    ]
    with listen(settings.host, settings.port, change="port in the settings file") as listener:
        assert settings.data_directory is not None, "it has a default"
        metrics = settings.data_directory / "metrics"
        fleet = Fleet(
            words,
            listener,
            settings.workers,
            ServiceManager(environment()),
            {**environment(), **shared_by_processes(metrics)},
            partial(forget_process, metrics),
        )
        port = listener.getsockname()[1]
        said = [f"listening on {url_of(settings.host, port, 'https' if settings.tls else 'http')}"]
        with opened_master(arguments) as master:
            link = first_link(master, own_url(settings, port), again=False)
        if link is not None:
            said.append(f"good once, for 24 hours, to become the first administrator: {link}")
        came_up = asyncio.run(fleet.run(lambda: print("\n".join(said), flush=True)))
    return 0 if came_up else 1
