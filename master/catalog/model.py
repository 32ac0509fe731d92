"""Software installations: a release on a node."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.nodes.model import ComputeNode
from slapos.master.text import URL_LENGTH
from slapos.protocol.states import InstallationState


class SoftwareInstallation(Base):
    """A release that is wanted on a node, or is to go from it, and what the node says of it.

    `reported_state` is a BuildState, or None before the node has said anything.
    """

    __tablename__ = "software_installations"
    __table_args__ = (
        UniqueConstraint("node_id", "url"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("compute_nodes.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(String(URL_LENGTH))
    requested_state: Mapped[str] = mapped_column(String(20), default=InstallationState.AVAILABLE)
    created_at: Mapped[datetime]
    reported_state: Mapped[str | None] = mapped_column(String(20))
    reported_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(Text, default="")

    node: Mapped[ComputeNode] = relationship()

    def seen_by(self) -> int | None:
        """Return the id of its node."""
        return self.node_id

    def is_acted_on(self) -> bool:
        """Return whether something else is wanted: what its node reports is not news to it."""
        return self.has_changed("requested_state")


class LocalReleaseRoot(Base):
    """The folder of local releases that the paths of releases here go by; there is one at most."""

    __tablename__ = "local_release_roots"

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(String(URL_LENGTH))
