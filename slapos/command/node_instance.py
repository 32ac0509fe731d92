"""Bring the instances on this node to what the master wants of them.

An instance is processed when something changed, when it failed (after a while that doubles each
time, at once with --now), and once a day. All others are only looked at: what ended is started
again, and their promises are checked.

exit status: 0 all is as wanted, 1 an instance failed, 2 only promises failed, 3 the master did not
answer and what is on disk was started, 10 this command runs already
"""

import argparse

from slapos.command.node_options import add_pass_options, run_pass, words
from slapos.node.doors import Doors
from slapos.node.instantiate.process import InstanceOptions
from slapos.node.passes import instance_pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_pass_options(parser)
    parser.add_argument(
        "--force", "--all", action="store_true", help="process also what is as wanted"
    )
    parser.add_argument(
        "--force-stop", action="store_true", help="process all, and stop what should be started"
    )
    parser.add_argument(
        "--only", "--only-cp", metavar="LIST", help="just these partitions, with commas"
    )
    parser.add_argument(
        "--buildout-debug", action="store_true", help="have buildout show where it fails"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the instance pass."""

    def work(doors: Doors) -> int:
        settings = doors.settings
        options = InstanceOptions(
            force=arguments.force or settings.develop,
            now=arguments.now,
            force_stop=arguments.force_stop or settings.force_stop,
            buildout_debug=arguments.buildout_debug,
        )
        return instance_pass(doors, options, only=words(arguments.only) or settings.only_cp)

    return run_pass(arguments, "cp", work)
