"""Restart processes of the instances on this node.

A name is as 'slapos node status' shows it: GROUP:PROCESS, GROUP:* for a partition, or all.
"""

import argparse

from slapos.command.node_options import add_configuration
from slapos.command.node_supervisorctl import control


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="a process, GROUP:* or all")


def run(arguments: argparse.Namespace) -> int:
    """Restart them."""
    return control(arguments, ["restart", *arguments.names])
