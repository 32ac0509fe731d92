"""Build the software releases that the master wants on this node, and remove those it does not.

A release that failed is tried again after a while that doubles each time, at once with --now.
A release in a local directory is built again when one of its files has changed.

exit status: 0 all is as wanted, 1 something failed, 10 this command runs already

example:
  slapos node software --cfg slapos.cfg --only https://example.com/hello/software.cfg
"""

import argparse

from slapos.command.node_options import add_pass_options, run_pass, words
from slapos.node.build.release import BuildOptions
from slapos.node.doors import Doors
from slapos.node.passes import software_pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_pass_options(parser)
    parser.add_argument(
        "--force", "--all", action="store_true", help="build again what is built already"
    )
    parser.add_argument(
        *("--only", "--only-sr"),
        metavar="LIST",
        help="build just these releases, again if they are built: URLs or MD5s, with commas",
    )
    parser.add_argument(
        "--garbage-collect", action="store_true", help="remove releases that nobody wants"
    )
    parser.add_argument(
        "--buildout-debug", action="store_true", help="have buildout show where it fails"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the software pass."""

    def work(doors: Doors) -> int:
        only = words(arguments.only) or doors.settings.only_sr
        options = BuildOptions(
            force=arguments.force or bool(arguments.only) or doors.settings.develop,
            now=arguments.now,
            buildout_debug=arguments.buildout_debug,
        )
        return software_pass(doors, options, only=only, garbage_collect=arguments.garbage_collect)

    return run_pass(arguments, "sr", work)
