"""Give a service up: all its instances are stopped and removed, with their data.

Destroying needs the node: in its next `slapos node report` pass it removes the processes and the
content of each partition, and only then the partition is free. --wait waits for that.

examples:
  slapos service destroy blog
  slapos service destroy blog --yes --wait

exit status: 0 (with --wait: it is gone), 1 failed, 2 not gone in time, or no such service
"""

import argparse
import json
import sys
from contextlib import suppress

from slapos.command.client_settings import (
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.command.service_info import EXIT_NOT_FOUND, read_tree
from slapos.command.tree_watch import LeavingTree, MasterTree, TreeReader
from slapos.command.waiting import EXIT_STATUS, add_wait_arguments, explain, outcome, wait
from slapos.protocol.errors import InvalidRequest, NotFound, NotReady
from slapos.protocol.states import InstanceState
from slapos.system.settings import environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("reference", help="the service's name, as in `slapos service list`")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_wait_arguments(parser, "it is gone and its partitions are free")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask, request the state `destroyed`, and wait when asked to."""
    settings = client_settings(arguments, environment())
    client = connect(settings)
    title = arguments.reference
    hateoas = connect_hateoas(client, settings)
    tree = read_tree(client, title)
    try:
        found = tree.root if tree else hateoas.service(title)
    except NotFound as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_FOUND
    if not arguments.yes:
        _confirm(title, [instance.title for instance in tree.instances] if tree else [title])
    with suppress(NotReady):  # how masters say that it is on its way
        client.request(
            software_url=found.software_url,
            title=title,
            software_type=found.software_type,
            state=InstanceState.DESTROYED,
            shared=found.shared,
        )
    if not arguments.wait:
        print(json.dumps({"reference": title}) if arguments.json else f"to be destroyed: {title}")
        return 0
    reader: TreeReader = MasterTree(client, title)
    if tree is None:
        reader = LeavingTree(hateoas, title)
    waited = wait(reader, arguments, until_gone=True)
    if arguments.json:
        print(json.dumps({"reference": title, **outcome(waited)}, indent=2))
    elif not EXIT_STATUS[waited.verdict]:
        print(f"destroyed: {title}, after {waited.seconds:.1f} s")
    if EXIT_STATUS[waited.verdict]:
        print(explain(waited, title, settings), file=sys.stderr)
    return EXIT_STATUS[waited.verdict]


def _confirm(title: str, instances: list[str]) -> None:
    """Have a person agree; raises InvalidRequest when nobody does."""
    if not sys.stdin.isatty():
        raise InvalidRequest("there is no terminal to ask for confirmation: say --yes")
    print(f"{title} and its data will be gone for good: {', '.join(instances)}", file=sys.stderr)
    answer = ""
    with suppress(EOFError):
        answer = input("Type the service's name to go on: ")
    if answer.strip() != title:
        raise InvalidRequest("nothing was destroyed")
