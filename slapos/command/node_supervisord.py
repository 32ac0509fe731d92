"""Start the supervisord of this node, unless it runs."""

import argparse
import logging
import os

from slapos.command.node_options import add_configuration, node_settings
from slapos.node.assembly import make_doors
from slapos.node.supervise.configuration import write_main

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument(
        "-n", "--nodaemon", action="store_true", help="run it in the foreground, as this process"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start it."""
    settings = node_settings(arguments)
    supervisor = make_doors(settings).supervisor
    if arguments.nodaemon and supervisor.is_running():
        logger.error("supervisord runs already: 'slapos node supervisorctl shutdown' ends it")
        return 1
    if arguments.nodaemon:
        write_main(settings.layout)
        os.chdir(settings.instance_root)
        command = [*supervisor.command, "--nodaemon"]
        os.execve(command[0], command, supervisor.environment)
    supervisor.ensure_running()
    return 0
