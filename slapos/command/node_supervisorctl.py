"""Speak with the supervisord of this node, which is started if need be.

example:
  slapos node supervisorctl status
  slapos node supervisorctl tail -f slappart0:web-on-watch
"""

import argparse
from collections.abc import Sequence

from supervisor import supervisorctl

from slapos.command.node_options import add_configuration, node_settings
from slapos.node.assembly import make_doors
from slapos.node.supervise.configuration import write_main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="...", help="what supervisorctl is told"
    )


def run(arguments: argparse.Namespace) -> int:
    """Hand the words over."""
    return control(arguments, arguments.words or ["status"])


def control(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Have supervisorctl do something, and return its exit status."""
    settings = node_settings(arguments)
    if settings.forbid_supervisord_automatic_launch:
        write_main(settings.layout)
    else:
        make_doors(settings).supervisor.ensure_running()
    try:
        supervisorctl.main(["-c", str(settings.layout.supervisor_configuration), *words])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0
