"""What may be ordered and where: products, their releases and types, supplies, installations."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, text, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.identity.model import Person, Project
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import ComputeNode
from slapos.master.text import URL_LENGTH
from slapos.protocol.errors import Conflict
from slapos.protocol.states import InstallationState

TITLE_LENGTH = 200
REFERENCE_LENGTH = 40
INSTALLATION_PREFIX = "SOFTINSTALL-"


class ProductState(StrEnum):
    """Whether a product may be ordered."""

    DRAFT = "draft"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


NEXT_STATES = {
    ProductState.DRAFT: {ProductState.PUBLISHED},
    ProductState.PUBLISHED: {ProductState.WITHDRAWN},
    ProductState.WITHDRAWN: {ProductState.PUBLISHED},
}


class SoftwareProduct(Base):
    """What customers order, whatever the release: "a database", "a web server"."""

    __tablename__ = "software_products"
    __table_args__ = (UniqueConstraint("project_id", "title"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    description: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[str] = mapped_column(String(20), default=ProductState.DRAFT)
    created_at: Mapped[datetime]

    project: Mapped[Project] = relationship()
    releases: Mapped[list["SoftwareRelease"]] = relationship(
        back_populates="product", cascade="all, delete-orphan", order_by="SoftwareRelease.id"
    )
    types: Mapped[list["SoftwareType"]] = relationship(
        back_populates="product", cascade="all, delete-orphan", order_by="SoftwareType.id"
    )

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.PRODUCT, self.reference, self.project_id)

    def become(self, state: ProductState) -> None:
        """Be published, or withdrawn; what has once been published is no draft again."""
        if state not in NEXT_STATES[ProductState(self.state)]:
            raise Conflict(f"the product {self.reference} is {self.state}; it cannot be {state}")
        self.state = state


class SoftwareRelease(Base):
    """One release of a product: the URL of a buildout profile."""

    __tablename__ = "software_releases"
    __table_args__ = (
        UniqueConstraint("product_id", "url"),
        Index(None, "url"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("software_products.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(String(URL_LENGTH))
    version: Mapped[str] = mapped_column(String(TITLE_LENGTH), default="")
    #: Where its software.cfg.json is; None: beside the profile.
    schema_url: Mapped[str | None] = mapped_column(String(URL_LENGTH))
    #: From when it is the one to take; a release of the future comes last.
    effective_at: Mapped[datetime]
    created_at: Mapped[datetime]

    product: Mapped[SoftwareProduct] = relationship(back_populates="releases")


class SoftwareType(Base):
    """A type of instance that a product's releases offer, and how much one weighs on a node."""

    __tablename__ = "software_types"
    __table_args__ = (UniqueConstraint("product_id", "name"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("software_products.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    weight: Mapped[int] = mapped_column(default=1)
    #: JSON schema of its parameters; None: as the release says.
    parameter_schema: Mapped[dict[str, Any] | None] = mapped_column(JSON)

    product: Mapped[SoftwareProduct] = relationship(back_populates="types")


class AllocationSupply(Base):
    """Which releases and types may be placed on which nodes, and for whom."""

    __tablename__ = "allocation_supplies"
    __table_args__ = (Index(None, "project_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    enabled: Mapped[bool] = mapped_column(default=True)
    #: Only for this person; None: for all customers of the project.
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("persons.id"))
    #: Whether instances host shared ones of their own tree without being an instance node.
    shared_in_same_tree: Mapped[bool] = mapped_column(default=False)
    #: Whether the releases are installed on the nodes when an instance is placed there.
    installs_by_need: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]

    project: Mapped[Project] = relationship()
    customer: Mapped[Person | None] = relationship()
    nodes: Mapped[list["SupplyNode"]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True
    )
    cells: Mapped[list["SupplyCell"]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True
    )

    def subject(self) -> Subject:
        """Return what rights on it go by: not every customer of the project may see each."""
        kind = Kind.SUPPLY if self.enabled and self.customer_id is None else Kind.PRIVATE_SUPPLY
        owner = self.customer_id if self.enabled else None
        return Subject(kind, self.reference, self.project_id, owner)


class SupplyNode(Base):
    """A node of a supply.

    `vacant` is False only while the node surely has no free partition for orders that ask for no
    capability: so that a search does not pass by thousands of full nodes.
    """

    __tablename__ = "supply_nodes"
    __table_args__ = (
        Index(None, "node_id"),
        Index(
            "ix_supply_nodes_vacant",
            "supply_id",
            "node_id",
            sqlite_where=text("vacant"),
            postgresql_where=text("vacant"),
        ),
    )

    supply_id: Mapped[int] = mapped_column(
        ForeignKey("allocation_supplies.id", ondelete="CASCADE"), primary_key=True
    )
    node_id: Mapped[int] = mapped_column(
        ForeignKey("compute_nodes.id", ondelete="CASCADE"), primary_key=True
    )
    vacant: Mapped[bool] = mapped_column(default=True, server_default=true())


class SupplyCell(Base):
    """A release and a type that a supply allows."""

    __tablename__ = "supply_cells"
    __table_args__ = (Index(None, "release_id", "type_id"),)

    supply_id: Mapped[int] = mapped_column(
        ForeignKey("allocation_supplies.id", ondelete="CASCADE"), primary_key=True
    )
    release_id: Mapped[int] = mapped_column(
        ForeignKey("software_releases.id", ondelete="CASCADE"), primary_key=True
    )
    type_id: Mapped[int] = mapped_column(
        ForeignKey("software_types.id", ondelete="CASCADE"), primary_key=True
    )

    release: Mapped[SoftwareRelease] = relationship()
    type: Mapped[SoftwareType] = relationship()


class SoftwareInstallation(Base):
    """A release that is wanted on a node, or is to go from it, and what the node says of it.

    `reported_state` is a BuildState, or None before the node has said anything.
    """

    __tablename__ = "software_installations"
    __table_args__ = (
        UniqueConstraint("node_id", "url"),
        Index(None, "url"),
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

    @property
    def reference(self) -> str:
        """What it is known by: SOFTINSTALL-n."""
        return f"{INSTALLATION_PREFIX}{self.id}"

    def want(self, state: InstallationState) -> None:
        """Have it available or gone; what the node said of another wish counts no more."""
        if self.requested_state != state:
            self.requested_state = state
            self.reported_state, self.reported_at, self.message = None, None, ""

    def seen_by(self) -> int | None:
        """Return the id of its node."""
        return self.node_id

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.INSTALLATION, self.url, self.node.project_id, node_id=self.node_id)

    def is_acted_on(self) -> bool:
        """Return whether something else is wanted: what its node reports is not news to it."""
        return self.has_changed("requested_state")


class LocalReleaseRoot(Base):
    """The folder of local releases that the paths of releases here go by; there is one at most."""

    __tablename__ = "local_release_roots"

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(String(URL_LENGTH))
