"""Show what a service's processes print, and how its instances came about.

It reads, of each instance, `.slapgrid/log/build.log` in its release's folder (how that was built),
`.slapgrid/log/instance.log` in its partition (how the instance was made), and there the files
`.<partition>_<process>.log` (what its processes print). The partition must be on this machine: for
others, the command says where to go.

examples:
  slapos service logs blog
  slapos service logs blog --instance database --lines 100
  slapos service logs blog -f
"""

import argparse
import sys
from dataclasses import dataclass

from slapos.command.client_settings import (
    ClientSettings,
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.command.log_view import (
    Log,
    instance_logs,
    show,
    show_and_follow,
    show_json,
)
from slapos.command.service_info import EXIT_NOT_FOUND, read_tree
from slapos.protocol.errors import NotFound
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import SystemClock
from slapos.system.settings import environment


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instance is, and what it is of."""

    title: str
    release: str
    node: str | None
    partition: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("reference", help="the service's name, as in `slapos service list`")
    parser.add_argument("--instance", metavar="TITLE", help="only this instance of its tree")
    parser.add_argument("--lines", type=int, default=20, metavar="N", help="so many last lines")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the ends of the logs; 2 when there is no such service, 1 when none is here."""
    settings = client_settings(arguments, environment())
    try:
        places = find_places(connect(settings), settings, arguments.reference, arguments.instance)
    except NotFound as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_FOUND

    def find() -> list[Log]:
        return [log for place in places for log in _logs_of(place, settings)]

    for place in places:
        if not _logs_of(place, settings):
            print(_elsewhere(place, settings, arguments), file=sys.stderr)
    logs = find()
    if arguments.json:
        show_json(logs, arguments.lines, "instance")
    elif arguments.follow and logs:
        show_and_follow(find, arguments.lines, SystemClock())
    else:
        show(logs, arguments.lines)
    return 0 if logs else 1


def find_places(
    client: SlapClient, settings: ClientSettings, title: str, instance: str | None
) -> list[Place]:
    """Return where the instances of a service are; raises NotFound."""
    tree = read_tree(client, title)
    if tree is not None:
        places = [
            Place(
                title=one.title,
                release=one.software_url,
                node=one.node,
                partition=one.partition,
            )
            for one in tree.instances
        ]
    else:
        found = connect_hateoas(client, settings)
        release = found.service(title).software_url
        node, partition = found.place(title) or (None, None)
        places = [Place(title=title, release=release, node=node, partition=partition)]
    if instance is not None:
        known = ", ".join(place.title for place in places)
        places = [place for place in places if place.title == instance]
        if not places:
            raise NotFound(f"{title!r} has no instance {instance!r}; it has: {known}")
    return places


def _logs_of(place: Place, settings: ClientSettings) -> list[Log]:
    return instance_logs(settings, place.title, place.node, place.partition, place.release)


def _elsewhere(place: Place, settings: ClientSettings, arguments: argparse.Namespace) -> str:
    if not place.partition:
        return f"{place.title} has no partition yet, so there is nothing to read"
    if place.node == settings.node and settings.instance_root is not None:
        return (
            f"{place.title} is in {settings.instance_root / place.partition}, where nothing is "
            "logged yet"
        )
    return (
        f"{place.title} is in the partition {place.partition} of the node {place.node}, which "
        f"{settings.path} does not describe. On that node run:\n"
        f"  slapos service logs {arguments.reference} --instance {place.title} "
        "--cfg /etc/opt/slapos/slapos.cfg"
    )
