"""How the forms of SLAP calls are read."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flask import request

from slapos.master.http import context
from slapos.master.identity.model import Tenant
from slapos.master.identity.rights import Action, require
from slapos.master.nodes import service as nodes
from slapos.master.provisioning import lookup
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.slap.asking import Place, asking
from slapos.master.timestamp import from_timestamp
from slapos.protocol.errors import Forbidden, InvalidRequest, MalformedDocument
from slapos.protocol.marshal import loads
from slapos.protocol.states import InstanceState


def read_order() -> InstanceOrder:
    """Read what is asked for from the form."""
    shared = document("shared_xml", default=False)
    state = document("state", default=None)
    url = field("software_release")
    filters = dictionary(document("filter_xml", default={}), "filter_xml")
    requested_by = requester()
    return InstanceOrder(
        title=field("partition_reference"),
        software_url=url,
        software_type=optional("software_type") or "default",
        parameters=dictionary(
            document("partition_parameter_xml", default={}), "partition_parameter_xml"
        ),
        filters=filters,
        state=read_state(state),
        shared=bool(shared),
        requester=requested_by,
        tenant=tenant(requested_by, url, filters),
    )


def read_state(state: Any) -> InstanceState:
    """Return the state that a client means; none is started."""
    try:
        return InstanceState(state or "started")
    except ValueError as error:
        raise InvalidRequest(
            f"an instance can be started, stopped or destroyed, not {state!r}"
        ) from error


def requester() -> SoftwareInstance | None:
    """Return the instance that asks, as the profile finds it out; None for a person."""
    named = named_partition()
    node, partition = optional("computer_id"), optional("computer_partition_id")
    found = asking().requester(
        context().session,
        None if named is None else Place(*named),
        None if node is None or partition is None else Place(node, partition),
    )
    if found is None and optional("requester_is_instance"):
        raise Forbidden(
            f"the partition {partition} of {node} is free: the instance that asks is gone"
        )
    return found


def tenant(requested_by: SoftwareInstance | None, url: str, filters: Mapping[str, Any]) -> Tenant:
    """Return whose an order is: for an instance, what its tree belongs to."""
    if requested_by is not None:
        return requested_by.tree.tenant
    return asking().tenant(context().session, optional("project_reference"), url, filters)


def names_a_partition() -> bool:
    """Return whether a partition asks, be it a free one."""
    return named_partition() is not None or optional("computer_partition_id") is not None


def named_partition() -> tuple[str, str] | None:
    """Return (node, partition) of the header `Authorization: X-SlapPartition …`."""
    kind, _, rest = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "x-slappartition":
        return None
    pairs = (item.partition("=") for item in rest.split(","))
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    return fields.get("computer_id", ""), fields.get("computer_partition_id", "")


def meant_instance() -> SoftwareInstance:
    """Return the instance in the partition that is named, or the shared one on it that is."""
    instance = instance_here()
    reference = optional("slave_reference")
    if reference is None:
        return instance
    return lookup.find_shared(context().session, instance, reference)


def instance_here() -> SoftwareInstance:
    """Return the instance in the partition that is named, which the caller may see."""
    session = context().session
    instance = lookup.instance_on_partition(session, *place())
    require(session, Action.SEE, instance)
    return instance


def place() -> tuple[str, str]:
    """Return the node and the partition that are named."""
    return field("computer_id"), field("computer_partition_id")


def about() -> datetime | None:
    """Return the timestamp that a report goes by; older nodes do not send it."""
    timestamp = optional("timestamp")
    return None if timestamp is None else from_timestamp(timestamp)


def field(name: str) -> str:
    """Return a field that has to be there."""
    return request.values[name]


def optional(name: str) -> str | None:
    """Return a field that may be missing, or empty, or "None"."""
    value = request.values.get(name)
    return None if value in (None, "", "None") else value


_REQUIRED = object()


def document(name: str, default: Any = _REQUIRED) -> Any:
    """Return the value of the SLAP document in a field."""
    if default is not _REQUIRED and not request.values.get(name):
        return default
    try:
        return loads(field(name).encode())
    except MalformedDocument as error:
        raise MalformedDocument(f"the field {name!r} cannot be read: {error}") from error


def dictionary(value: Any, name: str) -> Mapping[str, Any]:
    """Return a value, which has to be a dictionary with texts as keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidRequest(f"the field {name!r} is no dictionary of texts")
    return value


def read_format(value: Any) -> nodes.NodeFormat:
    """Read the dictionary that a node sends of itself."""
    try:
        return nodes.NodeFormat(
            reference=str(value["reference"]),
            address=_none_or_text(value.get("address")),
            netmask=_none_or_text(value.get("netmask")),
            os_type=_none_or_text(value.get("os_type")),
            public_address=_none_or_text(value.get("public_ipv4_address")),
            slapos_version=_none_or_text(value.get("slapos_version")),
            partitions=[_read_partition(item) for item in value.get("partition_list") or ()],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"this is no description of a node: {error!r}") from error


def _read_partition(item: Mapping[str, Any]) -> nodes.PartitionFormat:
    tap = item.get("tap") or {}
    # Without an interface of their own, addresses are told to be on one named as the partition.
    interface = str(tap.get("name") or item["reference"])
    found = [
        nodes.Address(
            interface=interface,
            address=str(address["addr"]),
            netmask=_none_or_text(address.get("netmask")),
        )
        for address in item.get("address_list") or ()
    ]
    if tap.get("ipv4_addr"):
        found.append(
            nodes.Address(
                interface=f"route_{interface}",
                address=str(tap["ipv4_addr"]),
                netmask=_none_or_text(tap.get("ipv4_netmask")),
                gateway=_none_or_text(tap.get("ipv4_gateway")),
                network=_none_or_text(tap.get("ipv4_network")),
            )
        )
    return nodes.PartitionFormat(
        reference=str(item["reference"]),
        addresses=found,
        capabilities=[str(name) for name in item.get("capability_list") or ()],
    )


def _none_or_text(value: Any) -> str | None:
    return None if value is None else str(value)
