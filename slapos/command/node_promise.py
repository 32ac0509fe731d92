"""Check all promises of the started instances on this node, now; the master is not told.

exit status: 0 all hold, 2 one does not, 1 they could not be checked, 10 `node instance` runs
"""

import argparse

from slapos.command.node_options import add_pass_options, run_pass, words
from slapos.node.doors import Doors
from slapos.node.passes import promise_pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_pass_options(parser)
    parser.add_argument(
        "--only", "--only-cp", metavar="LIST", help="just these partitions, with commas"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the promise pass."""

    def work(doors: Doors) -> int:
        return promise_pass(doors, only=words(arguments.only) or doors.settings.only_cp)

    return run_pass(arguments, "cp", work)
