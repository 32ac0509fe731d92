"""Have a software release removed from a node.

The node removes it in its next `slapos node software` pass. Instances of it are not
touched: destroy these services first.

examples:
  slapos remove software/helloworld/software.cfg local
  slapos remove https://example.com/kinto/software.cfg COMP-1234
"""

import argparse

from slapos.command.supply import add_arguments, tell_master
from slapos.protocol.states import InstallationState

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Tell the master; 0."""
    return tell_master(arguments, InstallationState.DESTROYED, "to be removed: {url} from {node}")
