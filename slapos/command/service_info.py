"""Show a service: what was asked, what it published, and how its instances are doing, as JSON.

`status` is green when all is as wanted, red when nothing is, orange when a part is, and none when
nothing is known yet; `tree` lists the instances with their phases. A master that does not tell
(slapproxy) has neither: its status is `unsupported`.

examples:
  slapos service info blog
  slapos service info blog --json | jq -r '."connection-parameters".url'

exit status: 0, or 2 when there is no such service
"""

import argparse
import json
import sys
from typing import Any

from slapos.command.client_settings import (
    ClientSettings,
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.command.tree_watch import MasterTree
from slapos.protocol.errors import Forbidden, InvalidRequest, NotFound
from slapos.protocol.hateoas_client import readable
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.tree_status import Phase, TreeStatus
from slapos.system.settings import environment

EXIT_NOT_FOUND = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("reference", help="the service's name, as in `slapos service list`")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known of the service; 2 when there is none."""
    settings = client_settings(arguments, environment())
    client = connect(settings)
    tree = read_tree(client, arguments.reference)
    try:
        known = _told(tree) if tree else _looked_up(client, settings, arguments.reference)
    except NotFound as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_FOUND
    print(json.dumps(known, indent=2))
    return 0


def read_tree(client: SlapClient, title: str) -> TreeStatus | None:
    """Return how a service is doing; None when the master does not tell, or has no such service."""
    try:
        return MasterTree(client, title).read()
    except (NotFound, Forbidden, InvalidRequest):
        return None


def _told(tree: TreeStatus) -> dict[str, Any]:
    root = tree.root
    return {
        "software-url": root.software_url,
        "software-type": root.software_type,
        "shared": root.shared,
        "requested-state": str(root.requested_state),
        "instance-parameters": readable(root.parameters),
        "connection-parameters": readable(root.connection),
        "status": colour(tree),
        "tree": [
            {
                "title": instance.title,
                "phase": str(instance.phase),
                "since": instance.since,
                "node": instance.node,
                "partition": instance.partition,
                "reason": instance.reason,
                "message": instance.message,
            }
            for instance in tree.instances
        ],
    }


def colour(tree: TreeStatus) -> str:
    """Return a tree's health as one of the words that `service info` has always had."""
    phases = {instance.phase for instance in tree.instances}
    if phases == {Phase.HEALTHY}:
        return "green"
    if not phases & {Phase.FAILED, Phase.PROMISING}:
        return "none"
    return "orange" if Phase.HEALTHY in phases else "red"


def _looked_up(client: SlapClient, settings: ClientSettings, title: str) -> dict[str, Any]:
    service = connect_hateoas(client, settings).service(title)
    return {
        "software-url": service.software_url,
        "software-type": service.software_type,
        "shared": service.shared,
        "requested-state": service.requested_state,
        "instance-parameters": service.parameters,
        "connection-parameters": service.connection,
        "status": service.status,
    }
