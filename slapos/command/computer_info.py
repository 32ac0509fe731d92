"""Show a node: its partitions and what is in them, and its releases with their builds.

A master that does not tell these (slapproxy) has only the reference and the title.

examples:
  slapos computer info local
  slapos computer info local --json | jq -r '.installations[] | select(.reported_state == "error")'

exit status: 0, or 2 when the master knows no such node
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from slapos.command.client_settings import (
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.protocol.errors import Forbidden, InvalidRequest, NotFound
from slapos.protocol.json_reader import load_json
from slapos.protocol.slap_client import SlapClient
from slapos.system.settings import environment

EXIT_NOT_FOUND = 2
#: How a release on a node is shown, by what the node said of it last.
_BUILDS = {"available": "built", "building": "building", "error": "failed", None: "not built yet"}
#: How much is shown of why a build failed: its last lines.
_SHOWN_LINES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("reference", help="the node's reference, such as COMP-1234")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known of the node; 2 when there is none."""
    settings = client_settings(arguments, environment())
    client = connect(settings)
    told = _told(client, arguments.reference)
    if told is None:
        try:
            node = connect_hateoas(client, settings).node(arguments.reference)
        except NotFound as error:
            print(error, file=sys.stderr)
            return EXIT_NOT_FOUND
        told = {"reference": node.reference, "title": node.title}
    print(json.dumps(told, indent=2) if arguments.json else "\n".join(lines(told)))
    return 0


def _told(client: SlapClient, reference: str) -> dict[str, Any] | None:
    """Return all that the master tells of a node; None when it does not, or there is no such."""
    try:
        response = client.http.request(
            "GET", f"v1/nodes/{quote(reference, safe='')}", headers={"Accept": "application/json"}
        )
        told = load_json(response.content)
    except (NotFound, Forbidden, InvalidRequest, ValueError):
        return None
    return told if isinstance(told, dict) and told.get("reference") == reference else None


def lines(node: dict[str, Any]) -> Iterator[str]:
    """Give what a person sees: the first two lines are those of slapos.core."""
    yield f"Computer Reference: {node['reference']}"
    yield f"Computer Title    : {node['title']}"
    if "partitions" not in node:
        return
    contact = node["contacted_at"]
    yield f"Last contact      : {_moment(contact) if contact else 'never'}"
    partitions = node["partitions"]
    busy = [one for one in partitions if one["state"] == "busy"]
    yield f"Partitions        : {len(busy)} busy, {len(partitions) - len(busy)} free"
    width = max((len(one["reference"]) for one in busy), default=0)
    for one in busy:
        yield f"  {one['reference']:<{width}}  {_content(one)}"
    releases = node["installations"]
    yield f"Releases          : {len(releases)}"
    width = max((len(_build(one)) for one in releases), default=0)
    for one in releases:
        yield f"  {_build(one):<{width}}  {one['url']}"
        if one["reported_state"] == "error":
            yield from (f"    {line}" for line in one["message"].splitlines()[-_SHOWN_LINES:])


def _content(partition: dict[str, Any]) -> str:
    """Return what is in a partition, and whether the node no longer names it."""
    instance = partition["instance"]
    text = "?"
    if instance is not None:
        of_tree = f", of {instance['tree']}" if instance["tree"] != instance["title"] else ""
        text = f"{instance['title']}{of_tree}"
    missing = partition["missing_since"]
    return f"{text} (the node has not named it since {_moment(missing)})" if missing else text


def _build(installation: dict[str, Any]) -> str:
    if installation["requested_state"] == "destroyed":
        return "to be removed"
    state = installation["reported_state"]
    return _BUILDS.get(state) or str(state)


def _moment(text: str) -> str:
    """Return a moment to the second; masters tell UTC."""
    return f"{text.partition('.')[0].removesuffix('+00:00').replace('T', ' ')} UTC"
