"""Instance trees and their instances."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, object_session, relationship

from slapos.master.database import Base
from slapos.master.identity.model import LOCAL_TENANT, Person, Project, Tenant
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import SHARED_REMOTE, ComputeNode, ComputePartition
from slapos.master.provisioning.reported import Reported
from slapos.master.text import URL_LENGTH
from slapos.protocol.states import InstanceState

TITLE_LENGTH = 200
#: A shared instance is known to its host by the titles of its tree and itself.
REFERENCE_LENGTH = 2 * TITLE_LENGTH + 40

WAITING_CODE_LENGTH = 40
WAITING_KEY_LENGTH = 80

TICK = timedelta(microseconds=1)
_WAITS = text("waiting_key <> ''")
_NOT_STARTED = text("requested_state != 'started'")
_ORPHANED = text("orphaned_at IS NOT NULL")
_HAS_REFERENCE = text("reference IS NOT NULL")


class InstanceTree(Base):
    """What a customer ordered: a root instance and all that it requested.

    Those of two persons, or in two projects, are two trees whatever their titles; in the local
    profile also a service and a shared instance of the same title.
    """

    __tablename__ = "instance_trees"
    __table_args__ = (
        UniqueConstraint("project_id", "owner_id", "title", "shared"),
        Index(
            "uq_instance_trees_title_with_reference",
            "project_id",
            "owner_id",
            "title",
            unique=True,
            sqlite_where=_HAS_REFERENCE,
            postgresql_where=_HAS_REFERENCE,
        ),
        Index(None, "owner_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    #: HOSTSUBS-n; None in the local profile, where the title says it all.
    reference: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    project_id: Mapped[int] = mapped_column(
        ForeignKey("projects.id"), default=LOCAL_TENANT.project_id
    )
    owner_id: Mapped[int] = mapped_column(ForeignKey("persons.id"), default=LOCAL_TENANT.owner_id)
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    shared: Mapped[bool]
    created_at: Mapped[datetime]

    project: Mapped[Project] = relationship()
    owner: Mapped[Person] = relationship()

    @property
    def tenant(self) -> Tenant:
        """Whose it is."""
        return Tenant(self.project_id, self.owner_id)

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        name = self.reference or self.title
        return Subject(Kind.TREE, name, self.project_id, self.owner_id, tree_id=self.id)


class SoftwareInstance(Base):
    """An instance, or a shared instance, which has a host and no partition of its own.

    `changed_at` is the timestamp that nodes compare: it changes exactly when there is something
    new for the node to act on. `reported_for` is the `changed_at` that the node's last report was
    about; so the node has brought about all that is wanted when the two are equal.
    """

    __tablename__ = "software_instances"
    __table_args__ = (
        # The root may have the title of one of its children.
        UniqueConstraint("tree_id", "title", "shared", "is_root"),
        Index(None, "node_id", "software_url"),
        Index(None, "waiting_key", "id", sqlite_where=_WAITS, postgresql_where=_WAITS),
        Index(
            None, "requested_state", "id", sqlite_where=_NOT_STARTED, postgresql_where=_NOT_STARTED
        ),
        Index(None, "orphaned_at", sqlite_where=_ORPHANED, postgresql_where=_ORPHANED),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    tree_id: Mapped[int] = mapped_column(ForeignKey("instance_trees.id"))
    is_root: Mapped[bool]
    requester_id: Mapped[int | None] = mapped_column(
        ForeignKey("software_instances.id", ondelete="SET NULL"), index=True
    )
    node_id: Mapped[int | None] = mapped_column(ForeignKey("compute_nodes.id"))
    partition_id: Mapped[int | None] = mapped_column(
        ForeignKey("compute_partitions.id"), unique=True
    )
    host_id: Mapped[int | None] = mapped_column(
        ForeignKey("software_instances.id", ondelete="SET NULL"), index=True
    )
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    shared: Mapped[bool]
    software_url: Mapped[str] = mapped_column(String(URL_LENGTH))
    software_type: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    requested_state: Mapped[str] = mapped_column(String(20))
    parameters: Mapped[dict[str, Any]]
    connection: Mapped[dict[str, Any]]
    filters: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    reported_state: Mapped[str | None] = mapped_column(String(20))
    reported_at: Mapped[datetime | None]
    reported_for: Mapped[datetime | None]
    #: Since when it is as the node said last.
    reported_since: Mapped[datetime | None]
    #: What the node said went wrong, until it says that all is well.
    error: Mapped[str] = mapped_column(Text, default="")
    #: Why it has no place yet: a word for programs and a sentence; both empty once it has one.
    waiting_code: Mapped[str] = mapped_column(
        String(WAITING_CODE_LENGTH), default="", server_default=""
    )
    waiting_reason: Mapped[str] = mapped_column(Text, default="", server_default="")
    #: The same for all that wait for the same; empty when it waits for nothing.
    waiting_key: Mapped[str] = mapped_column(
        String(WAITING_KEY_LENGTH), default="", server_default=""
    )
    #: How much it weighs on its node: what its type said when it was placed.
    weight: Mapped[int] = mapped_column(default=1, server_default="1")
    #: Since when nobody in its tree asks for it any more.
    orphaned_at: Mapped[datetime | None]

    #: Counted by the mapper: of two transactions that change one instance, the later is redone.
    revision: Mapped[int] = mapped_column()

    tree: Mapped[InstanceTree] = relationship(lazy="joined", innerjoin=True)
    node: Mapped[ComputeNode | None] = relationship(lazy="joined")
    partition: Mapped[ComputePartition | None] = relationship(lazy="joined")
    requester: Mapped["SoftwareInstance | None"] = relationship(
        foreign_keys=requester_id, remote_side=id
    )
    host: Mapped["SoftwareInstance | None"] = relationship(foreign_keys=host_id, remote_side=id)

    __mapper_args__ = {"version_id_col": revision}  # noqa: RUF012

    def seen_by(self) -> int | None:
        """Return the id of the node that it is on."""
        return self.node_id

    def is_acted_on(self) -> bool:
        """Return whether its timestamp has changed: what its node reports is not news to it."""
        return self.has_changed("changed_at")

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(
            Kind.INSTANCE,
            self.reference,
            self.tree.project_id,
            self.tree.owner_id,
            node_id=self.node_id,
            tree_id=self.tree_id,
            host_id=self.host_id,
            instance_id=self.id,
        )

    def wait(self, code: str, reason: str, key: str) -> None:
        """Take in why it has no place, and which others wait for the same."""
        if self.waiting_reason != reason:  # as long as it is the same, nothing is written
            self.waiting_reason = reason
        self.waiting_code, self.waiting_key = code, key

    def stop_waiting(self) -> None:
        """Wait no more: it has a place, or is to have none."""
        self.waiting_code = self.waiting_reason = self.waiting_key = ""

    def put_in(self, node_id: int, partition_id: int) -> None:
        """Take a partition that has just been occupied for it."""
        self.node_id, self.partition_id = node_id, partition_id
        session = object_session(self)
        if session is not None and self.id is not None:  # it is known without a place
            session.flush()
            session.expire(self, ["node", "partition"])

    def leave(self) -> None:
        """Be without a place, as if it had never had one."""
        self.node = self.partition = self.host = None
        self.connection = {}
        self.reported_state = self.reported_at = self.reported_for = self.reported_since = None
        self.error = ""

    @property
    def is_placed(self) -> bool:
        """Whether it has a partition, a host, or the place for shared ones of a remote node."""
        return self.partition_id is not None or self.host_id is not None or self._is_far

    @property
    def place_name(self) -> str | None:
        """What its place is called on its node, for a shared one that of its host."""
        partition = (self.host or self).partition
        if partition is not None:
            return partition.reference
        return SHARED_REMOTE if self._is_far else None

    @property
    def _is_far(self) -> bool:
        """Whether it is a shared one whose host is behind another master."""
        return self.shared and self.host_id is None and self.node_id is not None

    @property
    def is_elsewhere(self) -> bool:
        """Whether another master has it: it is on a remote node."""
        return self.node is not None and self.node.is_remote

    @property
    def is_to_go(self) -> bool:
        """Whether it is to be destroyed."""
        return self.requested_state == InstanceState.DESTROYED

    def mark_changed(self, now: datetime) -> None:
        """Tell the node that there is something new; the timestamp never goes back or stands."""
        self.changed_at = max(now, self.changed_at + TICK)

    def report(
        self,
        now: datetime,
        state: InstanceState,
        about: datetime | None = None,
        since: datetime | None = None,
    ) -> None:
        """Take in that the node has brought about a state; `about` is the timestamp it goes by."""
        self._take(self.reported.with_state(state, now, about or self.changed_at, since))

    def report_error(
        self,
        now: datetime,
        message: str,
        about: datetime | None = None,
        since: datetime | None = None,
    ) -> None:
        """Take in that the node failed."""
        self._take(self.reported.with_error(message, now, about or self.changed_at, since))

    @property
    def reported(self) -> Reported:
        """What the node said last."""
        return Reported(
            self.reported_state,
            self.error,
            self.reported_at,
            self.reported_for,
            self.reported_since,
        )

    def _take(self, reported: Reported) -> None:
        self.reported_state, self.error = reported.state, reported.error
        self.reported_at, self.reported_for = reported.at, reported.about
        self.reported_since = reported.since

    @property
    def is_settled(self) -> bool:
        """Whether the node's last report is about what is wanted now."""
        return self.reported_for == self.changed_at


class InstanceNode(Base):
    """An instance that hosts shared instances of all customers of its project, by order."""

    __tablename__ = "instance_nodes"
    __table_args__ = (UniqueConstraint("project_id", "title"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    #: SHARED-n
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    instance_id: Mapped[int] = mapped_column(
        ForeignKey("software_instances.id", ondelete="CASCADE"), unique=True
    )
    created_at: Mapped[datetime]

    instance: Mapped[SoftwareInstance] = relationship()

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.INSTANCE_NODE, self.reference, self.project_id)


class ForwardedRequest(Base):
    """A request that another master answered; `title` is what that master knows it by."""

    __tablename__ = "forwarded_requests"
    __table_args__ = (UniqueConstraint("title", "master_url"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(REFERENCE_LENGTH))
    master_url: Mapped[str] = mapped_column(String(URL_LENGTH))
    created_at: Mapped[datetime]
