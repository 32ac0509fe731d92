"""Persons, organisations, projects, and who is what in which."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol.errors import Conflict

NAME_LENGTH = 200
REFERENCE_LENGTH = 40
EMAIL_LENGTH = 320
ROLE_LENGTH = 40


class PersonState(StrEnum):
    """Whether a person may sign in."""

    #: Invited, and has no way of signing in yet.
    INVITED = "invited"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class ProjectState(StrEnum):
    """Whether a project may be worked in."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


@dataclass(frozen=True)
class Tenant:
    """Whose something is: the ids of a project and of a person in it."""

    project_id: int
    owner_id: int


#: The project and the person of a master with the local profile; migration 0006 makes them.
LOCAL_TENANT = Tenant(1, 1)


class Person(Base):
    """Somebody who orders, operates, sells or accounts; how she signs in is in other tables."""

    __tablename__ = "persons"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    #: In lower case; None for the local master's user, who never signs in.
    email: Mapped[str | None] = mapped_column(String(EMAIL_LENGTH), unique=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    state: Mapped[str] = mapped_column(String(20), default=PersonState.ACTIVE)
    created_at: Mapped[datetime]

    memberships: Mapped[list["Membership"]] = relationship(
        back_populates="person", cascade="all, delete-orphan"
    )

    def subject(self) -> Subject:
        """Return what rights on it go by: it is its own."""
        return Subject(Kind.PERSON, self.reference, owner_id=self.id)

    def activate(self) -> None:
        """Let her sign in: she has a way to, from now on."""
        if self.state == PersonState.SUSPENDED:
            raise Conflict(f"{self.reference} is suspended; an administrator can admit her again")
        self.state = PersonState.ACTIVE

    def suspend(self) -> None:
        """Have nothing that she shows count any more."""
        self.state = PersonState.SUSPENDED

    def admit(self) -> None:
        """Have what she shows count again."""
        if self.state == PersonState.SUSPENDED:
            self.state = PersonState.ACTIVE


class Organisation(Base):
    """A company that sells, or that pays for its people."""

    __tablename__ = "organisations"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    title: Mapped[str] = mapped_column(String(NAME_LENGTH))
    #: ISO 3166-1 alpha-2, such as FR.
    country: Mapped[str | None] = mapped_column(String(2))
    vat_code: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime]

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.ORGANISATION, self.reference)


class Project(Base):
    """What everything belongs to: nodes, catalogue, orders, and the people who may use them."""

    __tablename__ = "projects"
    __table_args__ = (Index(None, "owner_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    title: Mapped[str] = mapped_column(String(NAME_LENGTH))
    state: Mapped[str] = mapped_column(String(20), default=ProjectState.ACTIVE)
    owner_id: Mapped[int] = mapped_column(ForeignKey("persons.id"))
    organisation_id: Mapped[int | None] = mapped_column(ForeignKey("organisations.id"))
    created_at: Mapped[datetime]
    #: Whether who has a role in it needs a second factor, whatever the role.
    needs_second_factor: Mapped[bool] = mapped_column(default=False, server_default=false())

    owner: Mapped[Person] = relationship()
    organisation: Mapped[Organisation | None] = relationship()

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.PROJECT, self.reference, project_id=self.id, owner_id=self.owner_id)

    def move_to(self, state: ProjectState) -> None:
        """Open, suspend or archive it; what is archived stays so."""
        if self.state == ProjectState.ARCHIVED and state != ProjectState.ARCHIVED:
            raise Conflict(f"the project {self.reference} is archived, for good")
        self.state = state

    def check_active(self) -> None:
        """Raise Conflict unless it may be worked in."""
        if self.state != ProjectState.ACTIVE:
            raise Conflict(f"the project {self.reference} is {self.state}")


class Membership(Base):
    """A role that a person has in a project, or everywhere when `project_id` is None."""

    __tablename__ = "memberships"
    __table_args__ = (
        UniqueConstraint("person_id", "project_id", "role"),
        # In a unique constraint no NULL is like another.
        Index(
            "uq_memberships_everywhere",
            "person_id",
            "role",
            unique=True,
            sqlite_where=text("project_id IS NULL"),
            postgresql_where=text("project_id IS NULL"),
        ),
        Index(None, "project_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(String(ROLE_LENGTH))
    created_at: Mapped[datetime]

    person: Mapped[Person] = relationship(back_populates="memberships")
    project: Mapped[Project | None] = relationship()

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.MEMBERSHIP, self.role, project_id=self.project_id)
