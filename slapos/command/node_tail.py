"""Show the end of what a process of an instance printed.

example:
  slapos node tail -f slappart0:web-on-watch
  slapos node tail -5000 slappart0:web-on-watch
"""

import argparse

from slapos.command.node_options import add_configuration
from slapos.command.node_supervisorctl import control


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on showing what comes")
    parser.add_argument(
        "words", nargs="+", metavar="[-BYTES] NAME", help="how much, and a process, GROUP:PROCESS"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    return control(arguments, ["tail", *(["-f"] if arguments.follow else []), *arguments.words])
