"""What a node is told: made from the rooms, and kept as bytes until something of it changes."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos.master.catalog import service as catalog
from slapos.master.compression import accepts_gzip, gzipped
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.rights import Action, not_there, require
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode, ComputePartition, NodeExchange
from slapos.master.provisioning import lookup
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.status import access_status
from slapos.master.timestamp import to_timestamp
from slapos.protocol.marshal import dumps
from slapos.protocol.messages import NodeInformation, PartitionInformation, ReleaseAssignment
from slapos.protocol.states import InstallationState, InstanceState

XML = "text/xml; charset=utf-8"
#: Status, headers and content of an answer.
Answer = tuple[str, list[tuple[str, str]], bytes]
#: Where an application has its NodeViews.
NODE_VIEWS = "slapos.node_views"
#: Nodes whose documents are kept by a process.
KEPT_NODES = 1000


@dataclass(frozen=True)
class Document:
    """A document, the version of the node it was made for, and its ETag."""

    version: int
    content: bytes
    etag: str

    @cached_property
    def gzipped(self) -> bytes:
        """The document compressed, which is done once."""
        return gzipped(self.content)

    @property
    def is_gzipped(self) -> bool:
        """Whether it has been compressed already."""
        return "gzipped" in self.__dict__

    def answer(self, seen: str, accepted: str) -> Answer:
        """Return status, headers and content for If-None-Match `seen` and Accept-Encoding."""
        compressed = accepts_gzip(accepted)
        headers = [
            # Another entity tag for other bytes; both are known again, as one is in the other.
            ("ETag", f'"{self.etag}-gzip"' if compressed else f'"{self.etag}"'),
            ("Vary", "Accept-Encoding"),
        ]
        if self.etag in seen:
            return "304 NOT MODIFIED", headers, b""
        content = self.gzipped if compressed else self.content
        if compressed:
            headers.append(("Content-Encoding", "gzip"))
        headers += [("Content-Type", XML), ("Content-Length", str(len(content)))]
        return "200 OK", headers, content


class NodeViews:
    """Keeps the documents of nodes, each as long as its node's version stays the same.

    The version is read from the database each time, so any number of processes may do this.
    """

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}

    def kept(self, reference: str) -> Document | None:
        """Return the document that was made last, whether or not it is still true."""
        return self._documents.get(reference)

    def document(self, session: Session, reference: str) -> Document:
        """Return what a node is told, or raise NotFound."""
        row = session.execute(NODE_VERSION, {"reference": reference}).first()
        if row is None:
            nodes.find_node(session, reference)
            raise AssertionError("a node appeared in a transaction that reads one moment")
        kept = self._documents.get(reference)
        if kept is not None and kept.version == row.version:
            return kept
        content = dumps(node_information(session, row.node_id, reference).to_marshalled())
        document = Document(row.version, content, hashlib.sha256(content).hexdigest()[:32])
        if len(self._documents) >= KEPT_NODES:
            self._documents.clear()
        self._documents[reference] = document
        return document


def document_for_caller(views: NodeViews, session: Session, reference: str) -> Document:
    """Return what the session's caller may know of what a node is told, or raise NotFound.

    An instance is told of its own partition only, and of no release (slap-master.md §1.2).
    """
    caller = caller_of(session)
    if caller.may_all or (caller.kind is CallerKind.NODE and caller.name == reference):
        return views.document(session, reference)
    node = nodes.find_node(session, reference)
    if caller.kind is not CallerKind.INSTANCE:
        require(session, Action.SEE_VALUES, node)
        return views.document(session, reference)
    instance = session.get(SoftwareInstance, caller.id)
    if instance is None or instance.node_id != node.id or instance.partition is None:
        raise not_there(node.subject())
    partition = instance.partition.reference
    told = NodeInformation(
        reference=reference,
        releases=(),
        partitions=(partition_information(session, reference, partition),),
    )
    content = dumps(told.to_marshalled())
    return Document(0, content, hashlib.sha256(content).hexdigest()[:32])


#: A plain statement, made once: this is asked more often than anything else.
NODE_VERSION = (
    select(NodeExchange.node_id, NodeExchange.version)
    .join(ComputeNode, ComputeNode.id == NodeExchange.node_id)
    .where(ComputeNode.reference == bindparam("reference"))
)


def node_information(session: Session, node_id: int, reference: str) -> NodeInformation:
    """Return what a node has to build and run."""
    instances: dict[int, SoftwareInstance] = {}
    shared: dict[int, list[SoftwareInstance]] = defaultdict(list)
    for instance in lookup.instances_on_node(session, node_id):
        if instance.partition_id is not None:
            instances[instance.partition_id] = instance
        elif instance.host_id is not None:
            shared[instance.host_id].append(instance)
    told = []
    for partition in nodes.partitions(session, node_id):
        held = instances.get(partition.id)
        told.append(_partition(reference, partition, held, shared[held.id] if held else ()))
    return NodeInformation(
        reference=reference,
        releases=tuple(
            ReleaseAssignment(
                url=installation.url,
                node=reference,
                state=InstallationState(installation.requested_state),
            )
            for installation in catalog.installations(session, node_id)
        ),
        partitions=tuple(told),
    )


def partition_information(session: Session, node: str, reference: str) -> PartitionInformation:
    """Return what a node has to do with one partition, or raise NotFound."""
    partition = nodes.find_partition(session, node, reference)
    instance = lookup.find_on_partition(session, node, reference)
    require(session, Action.SEE_VALUES, partition.node if instance is None else instance)
    shared = lookup.shared_on(session, instance) if instance is not None else ()
    return _partition(node, partition, instance, shared)


def _partition(
    node: str,
    partition: ComputePartition,
    instance: SoftwareInstance | None,
    shared: Sequence[SoftwareInstance],
) -> PartitionInformation:
    if instance is None:
        return PartitionInformation(node=node, reference=partition.reference)
    return PartitionInformation(
        node=node,
        reference=partition.reference,
        state=InstanceState(instance.requested_state),
        software_url=instance.software_url,
        parameters={
            **instance.parameters,
            **addresses(partition),
            "full_address_list": [],
            "instance_title": instance.title,
            "root_instance_title": instance.tree.title,
            "root_instance_short_title": instance.tree.reference or "",
            "slap_computer_id": node,
            "slap_computer_partition_id": partition.reference,
            "slap_software_type": instance.software_type,
            "slap_software_release_url": instance.software_url,
            "slave_instance_list": [
                _shared(each) for each in shared if each.requested_state == InstanceState.STARTED
            ],
            "timestamp": to_timestamp(instance.changed_at),
        },
        connection=instance.connection,
        filter=instance.filters,
        instance_guid=instance.reference,
        access_status=access_status(instance),
        need_modification=True,
    )


def addresses(partition: ComputePartition) -> dict[str, list[tuple[str | None, ...]]]:
    """Return a partition's `ip_list` and `full_ip_list` (those with a gateway and a netmask)."""
    short: list[tuple[str | None, ...]] = []
    full: list[tuple[str | None, ...]] = []
    for each in partition.addresses:
        if each.gateway and each.netmask:
            full.append((each.interface, each.address, each.gateway, each.netmask, each.network))
        else:
            short.append((each.interface, each.address))
    return {"ip_list": short, "full_ip_list": full}


def _shared(instance: SoftwareInstance) -> dict[str, Any]:
    return {
        "slave_title": instance.reference,
        "slap_software_type": instance.software_type,
        "slave_reference": instance.reference,
        **instance.parameters,
    }
