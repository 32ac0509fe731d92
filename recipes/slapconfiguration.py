"""`slapos:slapconfiguration`: what the master and the node say to this instance.

Options (as in `[slap-connection]`, which has what is left out):
`computer`, `partition`, `url`, `key`, `cert`: which partition, of which master.
`configuration.NAME`: a parameter's value when the requester gave none.

Exported, as values: `configuration`, all parameters; `configuration.NAME`, each; `ipv4`, `ipv6`,
sets; `ipv4-random`, `ipv6-random`, one of each; `slap-software-type`, `slave-instance-list`,
`instance-title`, `root-instance-title`, `instance-guid`, `instance-state`, `timestamp`,
`slap-computer-id`, `slap-computer-partition-id`, `slap-software-release-url`; and everything in the
partition's `.slapos-resource`, its keys joined by `-`, as in `tap-ipv4-addr`.

`slapos:slapconfiguration.serialised` reads parameters that were sent as JSON.
"""

import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.instance_xml import unwrap_json
from slapos.protocol.messages import PartitionInformation
from slapos.recipes.connection import connect

RESOURCES = ".slapos-resource"
#: What the master adds to the parameters → what it is exported as, and when it says nothing.
ADDED = {
    "slap_software_type": ("slap-software-type", "default"),
    "slap_computer_partition_id": ("slap-computer-partition-id", ""),
    "slap_computer_id": ("slap-computer-id", ""),
    "slap_software_release_url": ("slap-software-release-url", ""),
    "slave_instance_list": ("slave-instance-list", []),
    "timestamp": ("timestamp", ""),
    "instance_title": ("instance-title", "UNKNOWN Instance"),
    "root_instance_title": ("root-instance-title", "UNKNOWN"),
    "root_instance_short_title": ("root-instance-short-title", "UNKNOWN"),
}
#: What is told otherwise, and is no parameter of the instance either.
ADDRESSES = ("ip_list", "full_ip_list", "full_address_list")
referable = re.compile(r"[-a-zA-Z0-9 ._]+").fullmatch


class Recipe:
    """What is known of this instance; it installs nothing."""

    def __init__(self, buildout: Any, _name: str, options: Any) -> None:
        self.connection = connect(buildout, options)
        information = self.connection.information()
        parameters = dict(information.parameters)
        for given, (exported, default) in ADDED.items():
            options[exported] = parameters.pop(given, default)
        for name in ADDRESSES:
            parameters.pop(name, None)
        options["instance-guid"] = information.instance_guid or ""
        options["instance-state"] = str(information.state)
        _export_addresses(information, options)
        for name, value in _resources(Path(buildout["buildout"]["directory"])):
            if name not in options:
                options[name] = value
        configuration = self.configuration(parameters, options)
        options["configuration"] = configuration
        if isinstance(configuration, dict):
            for name, value in configuration.items():
                if referable(name):
                    options[f"configuration.{name}"] = value

    def configuration(self, parameters: dict[str, Any], options: Any) -> Any:
        """Return the instance's parameters; `options` has everything else already."""
        # XML has no difference between empty and nothing.
        return {name: "" if value is None else value for name, value in parameters.items()}

    def install(self) -> list[str]:
        """Install nothing."""
        return []

    update = install


class Serialised(Recipe):
    """The same, for parameters that were sent as one JSON document."""

    def configuration(self, parameters: dict[str, Any], options: Any) -> Any:
        """Return what the JSON document says, of whatever type."""
        return unwrap_json(parameters)


def _export_addresses(information: PartitionInformation, options: Any) -> None:
    found: dict[str, set[str]] = {"ipv4": set(), "ipv6": set()}
    for item in information.parameters.get("ip_list") or ():
        address = str(item[1])
        try:
            kind = "ipv4" if isinstance(ip_address(address), IPv4Address) else "ipv6"
        except ValueError as error:
            raise MalformedDocument(f"the master sent {address!r} as an address") from error
        found[kind].add(address)
    for kind, addresses in found.items():
        options[kind] = addresses
        if addresses:
            options[f"{kind}-random"] = min(addresses)


def _resources(directory: Path) -> Iterator[tuple[str, Any]]:
    """Yield what the node's format wrote for this partition, in its folder or one above."""
    for folder in (directory, *directory.parents):
        try:
            text = (folder / RESOURCES).read_text()
        except FileNotFoundError:
            continue
        try:
            yield from _flat(json.loads(text))
        except (ValueError, AttributeError) as error:
            raise MalformedDocument(
                f"{folder / RESOURCES} is damaged ({error}): `slapos node format` writes it anew"
            ) from error
        return


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = prefix + name.replace("_", "-")
        if isinstance(value, dict):
            yield from _flat(value, f"{key}-")
        else:
            yield key, value
