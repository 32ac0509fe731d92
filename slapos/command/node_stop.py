"""Stop processes of the instances on this node.

A name is as 'slapos node status' shows it: GROUP:PROCESS, GROUP:* for a partition, or all.
What was stopped stays so until it is started again, or its instance changes.
"""

import argparse

from slapos.command.node_options import add_configuration, node_settings
from slapos.command.node_supervisorctl import control
from slapos.node.assembly import make_doors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="a process, GROUP:* or all")


def run(arguments: argparse.Namespace) -> int:
    """Stop them."""
    status = control(arguments, ["stop", *arguments.names])
    supervisor = make_doors(node_settings(arguments)).supervisor
    for name in arguments.names:
        for process in supervisor.stay_stopped(name):
            print(f"{process}: it had ended, and is not started again")
    return status
