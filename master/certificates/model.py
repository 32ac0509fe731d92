"""Authorities, the certificates that they have issued, and the tokens that nodes join with."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol.errors import Conflict

SERIAL_LENGTH = 40
DIGEST_LENGTH = 64
TITLE_LENGTH = 200


class AuthorityState(StrEnum):
    """Whether what an authority has signed counts."""

    TRUSTED = "trusted"
    #: Nothing that it has signed counts.
    RETIRED = "retired"


class CertificateAuthority(Base):
    """A certificate authority of ours; its key is encrypted with the master's secret.

    Of those that are trusted, the one with the latest `signs_from` that has come signs.
    """

    __tablename__ = "certificate_authorities"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    #: The sha256 of its public key (SPKI, DER), in hex.
    fingerprint: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    certificate: Mapped[str] = mapped_column(Text)
    sealed_key: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    signs_from: Mapped[datetime]
    retired_at: Mapped[datetime | None]
    not_after: Mapped[datetime]

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.AUTHORITY, self.fingerprint)


class IssuedCertificate(Base):
    """A certificate that we have issued: it counts as long as its row says so."""

    __tablename__ = "certificates"
    __table_args__ = (
        Index(None, "authority_id", "revoked_at"),
        Index(None, "node_id"),
        Index(None, "instance_id"),
        Index(None, "person_id"),
        Index(None, "not_after"),
    )

    #: Its serial number, in hex.
    serial: Mapped[str] = mapped_column(String(SERIAL_LENGTH), primary_key=True)
    authority_id: Mapped[int] = mapped_column(ForeignKey("certificate_authorities.id"))
    kind: Mapped[str] = mapped_column(String(20))
    node_id: Mapped[int | None] = mapped_column(ForeignKey("compute_nodes.id", ondelete="CASCADE"))
    instance_id: Mapped[int | None] = mapped_column(
        ForeignKey("software_instances.id", ondelete="CASCADE")
    )
    person_id: Mapped[int | None] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    issued_at: Mapped[datetime]
    not_after: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    authority: Mapped[CertificateAuthority] = relationship()

    def revoke(self, now: datetime) -> None:
        """Have it count no more."""
        if self.revoked_at is not None:
            raise Conflict(f"the certificate {self.serial} has been revoked already")
        self.revoked_at = now


class JoinToken(Base):
    """What a machine joins with, once: only its hash is kept."""

    __tablename__ = "join_tokens"
    __table_args__ = (Index(None, "expires_at"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), unique=True)
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    created_by: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    #: The node that joined with it, and the fingerprint of its key: it may ask again.
    node_id: Mapped[int | None] = mapped_column(ForeignKey("compute_nodes.id", ondelete="CASCADE"))
    key_fingerprint: Mapped[str | None] = mapped_column(String(DIGEST_LENGTH))

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.JOIN_TOKEN, self.title, self.project_id)
