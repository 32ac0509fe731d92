"""Show a node.

examples:
  slapos computer info local
  slapos computer info local --json

exit status: 0, or 2 when the master knows no such node
"""

import argparse
import json
import sys
from dataclasses import asdict

from slapos.command.client_settings import (
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.protocol.errors import NotFound
from slapos.system.settings import environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("reference", help="the node's reference, such as COMP-1234")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the node's reference and title; 2 when there is none."""
    settings = client_settings(arguments, environment())
    try:
        node = connect_hateoas(connect(settings), settings).node(arguments.reference)
    except NotFound as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(asdict(node), indent=2))
    else:
        print(f"Computer Reference: {node.reference}\nComputer Title    : {node.title}")
    return 0
