"""List the nodes: their references and titles.

examples:
  slapos computer list
  slapos computer list --json | jq -r .[].reference
"""

import argparse
import json
from dataclasses import asdict

from slapos.command.client_settings import (
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.system.settings import environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each node; 0."""
    settings = client_settings(arguments, environment())
    nodes = connect_hateoas(connect(settings), settings).nodes()
    if arguments.json:
        print(json.dumps([asdict(node) for node in nodes], indent=2))
    elif not nodes:
        print("No existing computer.")
    else:
        print("List of Computers:")
        for node in nodes:
            print(node.reference, node.title)
    return 0
