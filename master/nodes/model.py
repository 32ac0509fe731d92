"""Compute nodes and their partitions."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.protocol.errors import Conflict

REFERENCE_LENGTH = 200
REPORT_ID_LENGTH = 32
CHANGE_LENGTH = 32


class PartitionState(StrEnum):
    """Whether a partition holds an instance."""

    FREE = "free"
    BUSY = "busy"


class ComputeNode(Base):
    """A machine that builds releases and runs instances."""

    __tablename__ = "compute_nodes"

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    title: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    address: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    netmask: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH))
    created_at: Mapped[datetime]
    formatted_at: Mapped[datetime | None]

    exchange: Mapped["NodeExchange"] = relationship(lazy="joined", cascade="all, delete-orphan")
    partitions: Mapped[list["ComputePartition"]] = relationship(
        back_populates="node", order_by="ComputePartition.id", cascade="all, delete-orphan"
    )

    @property
    def contacted_at(self) -> datetime | None:
        """When it said something last."""
        return self.exchange.contacted_at


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
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("compute_nodes.id", ondelete="CASCADE"))
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    state: Mapped[str] = mapped_column(String(20), default=PartitionState.FREE)
    #: Since when the node no longer names it: it was busy, so it is kept until it is free.
    missing_since: Mapped[datetime | None]

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
