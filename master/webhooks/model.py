"""Webhooks, and what they are to be told or were told."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.identity.model import Project
from slapos.master.identity.subject import Kind, Subject

URL_LENGTH = 2000
EVENT_LENGTH = 100
#: Characters of a reason that are kept.
REASON_LENGTH = 300


class DeliveryState(StrEnum):
    """How far a delivery is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    #: It was tried too often.
    FAILED = "failed"


class Webhook(Base):
    """An address that is told of events in a project.

    It is told what its owner may see. `failures` are those since it last took something; it is not
    tried before `next_at`. One that is disabled is told nothing.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        Index(None, "project_id"),
        Index(None, "owner_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(40), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    owner_id: Mapped[int] = mapped_column(ForeignKey("persons.id"))
    url: Mapped[str] = mapped_column(String(URL_LENGTH))
    events: Mapped[list[str]] = mapped_column(JSON)
    sealed_secret: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    failures: Mapped[int] = mapped_column(default=0)
    failing_since: Mapped[datetime | None]
    next_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    #: Why it was disabled: a sentence.
    reason: Mapped[str] = mapped_column(String(REASON_LENGTH), default="")

    project: Mapped[Project] = relationship(lazy="joined", innerjoin=True)

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.WEBHOOK, self.reference, self.project_id, self.owner_id)

    def disable(self, now: datetime, reason: str) -> None:
        """Have it told nothing."""
        if self.disabled_at is None:
            self.disabled_at, self.reason = now, reason[:REASON_LENGTH]

    def enable(self) -> None:
        """Have it told again, as if it had never failed."""
        self.disabled_at, self.reason = None, ""
        self.succeed()

    def succeed(self) -> None:
        """Forget that it failed."""
        self.failures, self.failing_since, self.next_at = 0, None, None

    def fail(self, now: datetime, next_at: datetime) -> None:
        """Count a failure; it is tried again at `next_at`."""
        self.failures += 1
        self.failing_since = self.failing_since or now
        self.next_at = next_at


class WebhookDelivery(Base):
    """That a webhook is told of an event: what is sent, and what became of it."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "webhook_id", "state", "id"),
        Index(None, "webhook_id", "id"),
        Index(None, "made_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True
    )
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(EVENT_LENGTH))
    #: What is sent, always the same bytes.
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(20), default=DeliveryState.WAITING)
    made_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    tried_at: Mapped[datetime | None]
    #: What it was answered last: an HTTP status; or why there was no answer.
    status: Mapped[int | None]
    reason: Mapped[str] = mapped_column(String(REASON_LENGTH), default="")

    @property
    def message_id(self) -> str:
        """By what who is told knows that it was told of this already."""
        return f"msg_{self.id}"
