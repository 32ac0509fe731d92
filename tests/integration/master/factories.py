"""Things to test the master with, each with every field filled in."""

from typing import Any

from sqlalchemy.orm import Session

from slapos.master.nodes import service as nodes
from slapos.master.nodes.service import Address, NodeFormat, PartitionFormat
from slapos.master.provisioning import lookup
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.provisioning.service import InstanceOrder
from slapos.protocol.marshal import dumps
from slapos.system.clock import Clock

URL = "https://example.org/software.cfg"
NODE = "computer"


def partition_format(number: int, **fields: Any) -> PartitionFormat:
    defaults: dict[str, Any] = {
        "reference": f"slappart{number}",
        "addresses": [Address(interface="lo", address=f"10.0.0.{number}", netmask="255.0.0.0")],
    }
    return PartitionFormat(**(defaults | fields))


def node_format(count: int = 2, **fields: Any) -> NodeFormat:
    defaults: dict[str, Any] = {
        "reference": NODE,
        "partitions": [partition_format(number) for number in range(count)],
        "address": "10.0.0.1",
        "netmask": "255.0.0.0",
    }
    return NodeFormat(**(defaults | fields))


class Master:
    """The services of a master with one session, by short names."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self.session = session
        self.clock = clock
        self.policy = LocalPolicy(NODE)
        nodes.ensure_node(session, clock, NODE)

    def format(self, count: int = 2, **fields: Any) -> None:
        provisioning.format_node(self.session, self.clock, node_format(count, **fields))

    def request(self, title: str = "root", **fields: Any) -> SoftwareInstance:
        order = InstanceOrder(**({"title": title, "software_url": URL} | fields))
        return provisioning.request_instance(self.session, self.clock, self.policy, order)

    def partitions(self, node: str = NODE) -> dict[str, str]:
        """Return the state of each partition of a node."""
        found = nodes.partitions(self.session, nodes.find_node(self.session, node).id)
        return {partition.reference: partition.state for partition in found}

    def titles(self) -> list[str]:
        """Return the titles of all instances."""
        return [
            instance.title
            for tree in lookup.trees(self.session)
            for instance in lookup.instances_of(self.session, tree)
        ]


def request_form(title: str = "root", **fields: Any) -> dict[str, str]:
    """Return the form of requestComputerPartition."""
    marshalled = {
        "partition_parameter_xml": fields.pop("parameters", {}),
        "filter_xml": fields.pop("filters", {}),
        "shared_xml": fields.pop("shared", False),
        "state": fields.pop("state", "started"),
    }
    return {
        "software_release": URL,
        "software_type": "default",
        "partition_reference": title,
        **{name: dumps(value).decode() for name, value in marshalled.items()},
        **fields,
    }


def format_form(partitions: int = 2, node: str = NODE) -> dict[str, str]:
    """Return the form of loadComputerConfigurationFromXML."""
    told = {
        "reference": node,
        "address": "10.0.0.1",
        "netmask": "255.0.0.0",
        "partition_list": [
            {
                "reference": f"slappart{number}",
                "address_list": [{"addr": f"10.0.0.{number}", "netmask": "255.0.0.0"}],
                "tap": {"name": "lo"},
            }
            for number in range(partitions)
        ],
    }
    return {"xml": dumps(told).decode()}
