"""All that a master knows, in plain rows: what `slapos proxy show` shows."""

import hashlib
from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.nodes import service as nodes
from slapos.master.provisioning.model import SoftwareInstance

Rows = list[dict[str, Any]]


def computers(session: Session) -> Rows:
    """Return the nodes."""
    return [
        {
            "reference": node.reference,
            "address": node.address,
            "netmask": node.netmask,
            "last contact": node.contacted_at.isoformat() if node.contacted_at else None,
        }
        for node in nodes.nodes(session)
    ]


def software(session: Session) -> Rows:
    """Return the releases on each node; `md5` is the name of its folder there."""
    return [
        {
            "url": found.url,
            "computer": node.reference,
            "requested": found.requested_state,
            "reported": found.reported_state,
            # MD5 is what names the folder, and no secret.
            "md5": hashlib.md5(found.url.encode(), usedforsecurity=False).hexdigest(),
        }
        for node in nodes.nodes(session)
        for found in catalog.installations(session, node.id)
    ]


def partitions(session: Session) -> Rows:
    """Return the partitions that hold an instance."""
    return [
        {
            "computer": instance.node.reference,
            "partition": instance.partition.reference,
            "title": instance.title,
            "tree": instance.tree.title,
            "software": instance.software_url,
            "type": instance.software_type,
            "requested": instance.requested_state,
            "reported": instance.reported_state,
            "error": instance.error or None,
        }
        for instance in _instances(session)
        if instance.partition is not None and instance.node is not None
    ]


def slaves(session: Session) -> Rows:
    """Return the shared instances."""
    return [
        {
            "reference": instance.reference,
            "title": instance.title,
            "tree": instance.tree.title,
            "host": instance.host.reference if instance.host is not None else None,
            "requested": instance.requested_state,
        }
        for instance in _instances(session)
        if instance.shared
    ]


def params(session: Session) -> Rows:
    """Return what is published."""
    return [
        {"instance": instance.reference, "title": instance.title, "name": name, "value": value}
        for instance in _instances(session)
        for name, value in sorted(instance.connection.items())
    ]


def network(session: Session) -> Rows:
    """Return the addresses of the partitions that hold an instance."""
    return [
        {
            "computer": node.reference,
            "partition": partition.reference,
            "interface": address.interface,
            "address": address.address,
        }
        for node in nodes.nodes(session)
        for partition in nodes.partitions(session, node.id)
        if partition.state == "busy"
        for address in partition.addresses
    ]


#: In the order they are shown.
SECTIONS: dict[str, Callable[[Session], Rows]] = {
    "computers": computers,
    "software": software,
    "partitions": partitions,
    "slaves": slaves,
    "params": params,
    "network": network,
}


def _instances(session: Session) -> list[SoftwareInstance]:
    query = select(SoftwareInstance).order_by(SoftwareInstance.node_id, SoftwareInstance.id)
    return list(session.scalars(query).all())
