"""Have a software release built on a node, so that instances of it can run there.

The node builds it in its next `slapos node software` pass.

examples:
  slapos supply software/helloworld/software.cfg local
  slapos supply https://example.com/kinto/software.cfg COMP-1234
"""

import argparse
import json

from slapos.command.client_settings import (
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
)
from slapos.command.release_url import release_url
from slapos.protocol.states import InstallationState
from slapos.system.settings import environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("url", help="the release: a URL, a path, or product.NAME")
    parser.add_argument("node", help="the node's reference, such as COMP-1234")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tell the master; 0."""
    return tell_master(arguments, InstallationState.AVAILABLE, "to be built: {url} on {node}")


def tell_master(arguments: argparse.Namespace, state: InstallationState, words: str) -> int:
    """Tell the master what is wanted of a release on a node, and the user that it was told."""
    client = connect(client_settings(arguments, environment()))
    url = release_url(arguments.url, client)
    client.supply(url, arguments.node, state)
    if arguments.json:
        print(json.dumps({"url": url, "node": arguments.node, "state": str(state)}))
    else:
        print(words.format(url=url, node=arguments.node))
    return 0
