"""Report what the instances on this node used, and remove those that were destroyed.

Usage that the master does not take is kept on disk and sent by the next report.

exit status: 0 done, 1 something failed, 10 this command runs already
"""

import argparse

from slapos.command.node_options import add_pass_options, run_pass
from slapos.node.passes import report_pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_pass_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the report pass."""
    return run_pass(arguments, "ur", report_pass)
