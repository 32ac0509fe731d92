"""Nodes that are silent, and how promises of instances did."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.nodes.model import ComputeNode

NAME_LENGTH = 200
#: The task that looks which nodes are lost, and which are back.
WATCH = "watch_nodes"


class NodeWatch(Base):
    """The one row of what is known of the watch itself.

    Silence counts from `listening_since` at most: before that, nobody could have been heard.
    `braked_since` is since when so many nodes are missing together that nothing is done about it.
    """

    __tablename__ = "node_watches"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    looked_at: Mapped[datetime]
    listening_since: Mapped[datetime]
    braked_since: Mapped[datetime | None]


class NodeLoss(Base):
    """A node that is silent for too long, until it is heard again.

    `heard_at` is when it was heard last; `released_at` when its instances were given up, to be
    placed elsewhere where their orders allow it; None while that is held back.
    """

    __tablename__ = "node_losses"

    node_id: Mapped[int] = mapped_column(
        ForeignKey("compute_nodes.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    heard_at: Mapped[datetime]
    lost_at: Mapped[datetime]
    released_at: Mapped[datetime | None]

    node: Mapped[ComputeNode] = relationship(lazy="joined", innerjoin=True)


class PromiseReport(Base):
    """When the node told last how the promises of an instance do: all of them."""

    __tablename__ = "promise_reports"

    instance_id: Mapped[int] = mapped_column(
        ForeignKey("software_instances.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    heard_at: Mapped[datetime]


class InstancePromise(Base):
    """A promise that an instance has now, and since when it is as it is."""

    __tablename__ = "instance_promises"

    instance_id: Mapped[int] = mapped_column(
        ForeignKey("software_instances.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    title: Mapped[str] = mapped_column(String(NAME_LENGTH))
    failed: Mapped[bool]
    message: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime]


class PromiseChange(Base):
    """That a promise failed, or held again."""

    __tablename__ = "promise_changes"
    __table_args__ = (
        Index(None, "instance_id", "id"),
        Index(None, "told_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True
    )
    instance_id: Mapped[int] = mapped_column(
        ForeignKey("software_instances.id", ondelete="CASCADE")
    )
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    failed: Mapped[bool]
    message: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    told_at: Mapped[datetime]
