"""List the services: their titles and the URLs of their software releases, as JSON.

examples:
  slapos service list
  slapos service list --json | jq -r keys[]
"""

import argparse
import json

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
    """Print an object of title → URL; 0."""
    settings = client_settings(arguments, environment())
    services = connect_hateoas(connect(settings), settings).services()
    print(json.dumps(services, indent=2, sort_keys=True))
    return 0
