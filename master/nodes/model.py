"""Compute nodes and their partitions."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.identity.model import LOCAL_TENANT, Project
from slapos.master.identity.subject import Kind, Subject
from slapos.master.text import URL_LENGTH
from slapos.protocol.errors import Conflict

REFERENCE_LENGTH = 200
#: The place on a remote node for shared instances: there may be any number, and it is never free.
SHARED_REMOTE = "SHARED_REMOTE"
REPORT_ID_LENGTH = 32
CHANGE_LENGTH = 32
_LEFT = text("left_since IS NOT NULL")
#: As long as the references of instances.
LEFT_LENGTH = 440
#: What an operator may say that a node is like, and an order may ask for (slap-master.md §5.2).
CATEGORIES = frozenset(
    {
        "group",
        "region",
        "cpu_core",
        "cpu_frequency",
        "cpu_type",
        "local_area_network_type",
        "memory_size",
        "memory_type",
        "storage_capacity",
        "storage_interface",
        "storage_redundancy",
    }
)


class PartitionState(StrEnum):
    """Whether a partition holds an instance."""

    FREE = "free"
    BUSY = "busy"


class AllocationScope(StrEnum):
    """Whether instances may be placed on a node (slap-master's words)."""

    OPEN = "open"
    #: Nothing new is placed; what is there stays.
    NO_ALLOCATION = "close/noallocation"
    MAINTENANCE = "close/maintenance"
    OUTDATED = "close/outdated"
    #: It is being emptied.
    TERMINATION = "close/termination"
    #: It is gone for good.
    FOREVER = "close/forever"


class ComputerNetwork(Base):
    """A network that nodes are in: for orders that want, or avoid, the same one."""

    __tablename__ = "computer_networks"
    __table_args__ = (UniqueConstraint("project_id", "title"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    title: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[datetime]

    project: Mapped[Project] = relationship()

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.NETWORK, self.reference, self.project_id)


class ComputeNode(Base):
    """A machine that builds releases and runs instances.

    `capacity` is how much its instances may weigh together (their types say how much each does),
    None without a bound. `os_type`, `public_address` and `slapos_version` are what the node says of
    itself when it is formatted. One that is gone for good is invalidated: it stays for the record,
    and its title is free again.
    """

    __tablename__ = "compute_nodes"
    __table_args__ = (
        Index(
            "uq_compute_nodes_project_id_title",
            "project_id",
            "title",
            unique=True,
            sqlite_where=text("invalidated_at IS NULL"),
            postgresql_where=text("invalidated_at IS NULL"),
        ),
        Index(None, "network_id"),
        Index(None, "allocation_scope"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    title: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    project_id: Mapped[int] = mapped_column(
        ForeignKey("projects.id"), default=LOCAL_TENANT.project_id
    )
    allocation_scope: Mapped[str] = mapped_column(String(30), default=AllocationScope.OPEN)
    capacity: Mapped[int | None]
    network_id: Mapped[int | None] = mapped_column(ForeignKey("computer_networks.id"))
    address: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    netmask: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    os_type: Mapped[str | None] = mapped_column(Text)
    public_address: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    slapos_version: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    created_at: Mapped[datetime]
    formatted_at: Mapped[datetime | None]
    invalidated_at: Mapped[datetime | None]

    #: Whether it stands for another master: what is placed on it is ordered there.
    is_remote: Mapped[bool] = mapped_column(default=False, server_default=false())

    exchange: Mapped["NodeExchange"] = relationship(lazy="joined", cascade="all, delete-orphan")
    remote: Mapped["RemoteNode | None"] = relationship(
        back_populates="node", cascade="all, delete-orphan", passive_deletes=True
    )
    project: Mapped[Project] = relationship()
    network: Mapped[ComputerNetwork | None] = relationship()
    categories: Mapped[list["NodeCategory"]] = relationship(
        order_by="NodeCategory.name", cascade="all, delete-orphan", passive_deletes=True
    )
    partitions: Mapped[list["ComputePartition"]] = relationship(
        back_populates="node", order_by="ComputePartition.id", cascade="all, delete-orphan"
    )

    @property
    def contacted_at(self) -> datetime | None:
        """When it said something last."""
        return self.exchange.contacted_at

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        if self.is_remote:  # nobody is it, or holds what is on it
            return Subject(Kind.REMOTE_NODE, self.reference, self.project_id)
        return Subject(Kind.NODE, self.reference, self.project_id, node_id=self.id)

    def check_valid(self) -> None:
        """Raise Conflict when it is gone for good."""
        if self.invalidated_at is not None:
            raise Conflict(
                f"the node {self.reference} is gone for good since {self.invalidated_at:%Y-%m-%d}; "
                "a machine that comes back joins again, as a new node"
            )

    def invalidate(self, now: datetime) -> None:
        """Take it out of use for good; what was to be closed for ever before."""
        if self.allocation_scope != AllocationScope.FOREVER:
            raise Conflict(
                f"the node {self.reference} is {self.allocation_scope}; "
                f"only one that is {AllocationScope.FOREVER} goes for good"
            )
        self.invalidated_at = now


class RemoteNode(Base):
    """Another master that stands behind a node: what is placed on the node is ordered there.

    What was asked of it is a `remote.model.RemoteRequest` for each instance.

    `project_reference` is that of the project there, `filters` are sent with each order,
    `sealed_credentials` is the JSON of a `Credentials`, encrypted. `authority` is the PEM of the
    authority that the master there is checked by, "" for those that the system trusts.

    `asking_until` is until when a process may speak with it, and no other one; None when none does.
    `failures` are those since it last answered; it is not asked before `next_at`.
    """

    __tablename__ = "remote_nodes"

    node_id: Mapped[int] = mapped_column(
        ForeignKey("compute_nodes.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    url: Mapped[str] = mapped_column(String(URL_LENGTH))
    project_reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), default="")
    filters: Mapped[dict[str, Any]] = mapped_column(JSON)
    authority: Mapped[str] = mapped_column(Text, default="")
    sealed_credentials: Mapped[str] = mapped_column(Text)
    #: When its certificate ends; None for a token.
    credentials_until: Mapped[datetime | None]
    #: Counts changes of all this: what was asked of it before is asked again.
    revision: Mapped[int] = mapped_column(default=1)
    answered_at: Mapped[datetime | None]
    asking_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)
    failing_since: Mapped[datetime | None]
    next_at: Mapped[datetime | None]
    #: Why it gave no answer last: a sentence; "" when it did.
    error: Mapped[str] = mapped_column(Text, default="")

    node: Mapped[ComputeNode] = relationship(back_populates="remote", lazy="joined")

    def answer(self, now: datetime) -> None:
        """Take in that it has answered."""
        self.answered_at = now
        self.failures, self.failing_since, self.next_at, self.error = 0, None, None, ""

    def fail(self, now: datetime, next_at: datetime, error: str) -> None:
        """Count that it gave no answer; it is asked again at `next_at`."""
        self.failures += 1
        self.failing_since = self.failing_since or now
        self.next_at, self.error = next_at, error


class NodeCategory(Base):
    """What a node is like, for orders that ask for it: `region`, `group`, `cpu_core`, …"""

    __tablename__ = "node_categories"
    __table_args__ = (Index(None, "name", "value"),)

    node_id: Mapped[int] = mapped_column(
        ForeignKey("compute_nodes.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), primary_key=True)
    value: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))


class NodeExchange(Base):
    """What passes between master and node, counted by `nodes/exchange.py`.

    `version` grows with each transaction that changes what the node is told; `change` is another
    word after each that gives it something to do. They are not a part of ComputeNode, because they
    change at the end of each transaction, when the node may be locked.
    """

    __tablename__ = "node_exchanges"

    node_id: Mapped[int] = mapped_column(
        ForeignKey("compute_nodes.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    change: Mapped[str] = mapped_column(String(CHANGE_LENGTH), default="", server_default="")
    contacted_at: Mapped[datetime | None]
    #: Whether that was its waiting on the change feed, by which it is heard all the time.
    waits: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: As that of its node: so that who counts knows it without another statement.
    is_remote: Mapped[bool] = mapped_column(default=False, server_default=false())


class TakenReport(Base):
    """A report that a node has sent and that counts: the same one again counts no more."""

    __tablename__ = "taken_reports"
    __table_args__ = (Index(None, "node_id", "taken_at"),)

    node_id: Mapped[int] = mapped_column(
        ForeignKey("compute_nodes.id", ondelete="CASCADE"), primary_key=True
    )
    report_id: Mapped[str] = mapped_column(String(REPORT_ID_LENGTH), primary_key=True)
    taken_at: Mapped[datetime]


class ComputePartition(Base):
    """A place for one instance on a node."""

    __tablename__ = "compute_partitions"
    __table_args__ = (
        UniqueConstraint("node_id", "reference"),
        Index(None, "node_id", "state"),
        Index(None, "left_since", sqlite_where=_LEFT, postgresql_where=_LEFT),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("compute_nodes.id", ondelete="CASCADE"))
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    state: Mapped[str] = mapped_column(String(20), default=PartitionState.FREE)
    #: Since when the node no longer names it: it was busy, so it is kept until it is free.
    missing_since: Mapped[datetime | None]
    #: What the node has found in it although nothing is there by us: its reference, "" for nothing.
    left_instance: Mapped[str] = mapped_column(String(LEFT_LENGTH), default="", server_default="")
    left_title: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), default="", server_default="")
    left_since: Mapped[datetime | None]

    node: Mapped[ComputeNode] = relationship(back_populates="partitions")
    addresses: Mapped[list["PartitionAddress"]] = relationship(
        back_populates="partition",
        order_by="PartitionAddress.position",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    capabilities: Mapped[list["PartitionCapability"]] = relationship(
        order_by="PartitionCapability.name", cascade="all, delete-orphan", passive_deletes=True
    )

    def occupy(self) -> None:
        """Take it for an instance."""
        if self.state != PartitionState.FREE or self.missing_since is not None:
            raise Conflict(f"the partition {self.reference} is not free")
        self.state = PartitionState.BUSY

    def release(self) -> None:
        """Give it back."""
        self.state = PartitionState.FREE

    def seen_by(self) -> int | None:
        """Return the id of its node."""
        return self.node_id

    def subject(self) -> Subject:
        """Return what rights on it go by: those on its node."""
        return self.node.subject()


class PartitionAddress(Base):
    """An IP address of a partition; with `gateway` and `netmask` it is a full one."""

    __tablename__ = "partition_addresses"

    partition_id: Mapped[int] = mapped_column(
        ForeignKey("compute_partitions.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    interface: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    address: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    netmask: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    gateway: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    network: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))

    partition: Mapped[ComputePartition] = relationship(back_populates="addresses")


class PartitionCapability(Base):
    """A word that a partition offers and that a request may ask for."""

    __tablename__ = "partition_capabilities"

    partition_id: Mapped[int] = mapped_column(
        ForeignKey("compute_partitions.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), primary_key=True)
