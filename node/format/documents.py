"""What a formatted node is described by: to the master, to its instances, on disk."""

import configparser
import io
import ipaddress
import json
import platform
from importlib import metadata
from typing import Any

from lxml import etree

from slapos.node.format.plan import NodePlan, PartitionPlan
from slapos.node.settings import FormatSettings
from slapos.protocol.marshal import dumps


def node_document(plan: NodePlan, settings: FormatSettings) -> dict[str, Any]:
    """Return what the master is told of the node."""
    address, _, netmask = plan.address.partition("/")
    system = platform.freedesktop_os_release()
    document: dict[str, Any] = {
        "reference": plan.reference,
        "address": address,
        "netmask": netmask,
        "software_user": plan.software_user,
        "software_root": str(settings.software_root),
        "instance_root": str(settings.instance_root),
        "instance_storage_home": settings.instance_storage_home,
        "os_type": json.dumps(
            [
                platform.platform(),
                system.get("ID", ""),
                system.get("VERSION_ID", ""),
                system.get("NAME", ""),
            ]
        ),
        "python_version": platform.python_version(),
        "slapos_version": metadata.version("slapos"),
        "partition_list": [partition_document(partition) for partition in plan.partitions],
    }
    if settings.on_interfaces:
        document |= _network_document(settings)
    return document


def _network_document(settings: FormatSettings) -> dict[str, Any]:
    ipv6_interface = settings.ipv6_interface or settings.interface_name
    return {
        "interface": {
            "name": settings.interface_name,
            "ipv4_local_network": str(settings.ipv4_local_network),
            "ipv6_interface": ipv6_interface,
            "ipv6_prefixshift": settings.ipv6_prefixshift,
        },
        "ipv6_interface": ipv6_interface,
        "partition_has_ipv6_range": settings.partition_has_ipv6_range,
        "tap_gateway_interface": settings.tap_gateway_interface,
        "tap_ipv6": settings.tap_ipv6,
        # Nobody outside is asked for it.
        "public_ipv4_address": None,
    }


def partition_document(plan: PartitionPlan) -> dict[str, Any]:
    """Return what is said of one partition, to the master and in `.slapos-resource`."""
    document: dict[str, Any] = {
        "reference": plan.reference,
        "path": str(plan.folder),
        "address_list": [
            {"addr": addr, "netmask": netmask}
            for addr, _, netmask in (address.partition("/") for address in plan.addresses)
        ],
        "ipv6_range": _range(plan.ipv6_range),
        "tap": {"name": plan.tap or plan.reference, **plan.tap_network},
        "tun": None if plan.tun is None else dict(plan.tun),
        "external_storage_list": [],
        "user": {
            "name": plan.user,
            "path": str(plan.folder),
            "shell": "/bin/sh",
            "additional_group_list": [],
        },
    }
    if plan.capabilities:
        document["capability_list"] = list(plan.capabilities)
    return document


def _range(text: str) -> dict[str, Any]:
    if not text:
        return {}
    network = ipaddress.IPv6Network(text, strict=False)
    return {
        "addr": text.partition("/")[0],
        "network": str(network),
        "netmask": str(network.netmask),
        "prefixlen": network.prefixlen,
    }


def resource_text(plan: PartitionPlan) -> str:
    """Return the content of `.slapos-resource`."""
    return json.dumps(partition_document(plan), indent=4, sort_keys=True)


def xml_text(document: dict[str, Any]) -> bytes:
    """Return the content of the file `computer_xml`."""
    element = etree.fromstring(dumps(document))
    text: bytes = etree.tostring(element, pretty_print=True)
    return text


def definition_text(plan: NodePlan) -> str:
    """Return the content of the file `output_definition_file`."""
    parser = configparser.ConfigParser(interpolation=None)
    parser["computer"] = {"address": plan.address, "software_user": plan.software_user}
    for number, partition in enumerate(plan.partitions):
        parser[f"partition_{number}"] = {
            "address": " ".join(partition.addresses),
            "user": partition.user,
            "network_interface": partition.tap,
            "pathname": partition.reference,
            **({"ipv6_range": partition.ipv6_range} if partition.ipv6_range else {}),
        }
    stream = io.StringIO()
    parser.write(stream)
    return stream.getvalue()
