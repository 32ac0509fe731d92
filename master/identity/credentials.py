"""How people show who they are; of every secret only a hash is kept."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from slapos.master.database import Base
from slapos.master.identity.model import (
    EMAIL_LENGTH,
    NAME_LENGTH,
    REFERENCE_LENGTH,
    ROLE_LENGTH,
    Person,
    Project,
)
from slapos.master.identity.subject import Kind, Subject

#: A SHA-256 in hexadecimal digits.
HASH_LENGTH = 64
ADDRESS_LENGTH = 60
AGENT_LENGTH = 200
SCOPES_LENGTH = 60


class Password(Base):
    """A person's password, as a hash of Argon2."""

    __tablename__ = "passwords"

    person_id: Mapped[int] = mapped_column(
        ForeignKey("persons.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    hash: Mapped[str] = mapped_column(String(200))
    changed_at: Mapped[datetime]


class SignIn(Base):
    """A browser or program in which a person has signed in, for as long as that counts."""

    __tablename__ = "sign_ins"
    __table_args__ = (Index(None, "person_id"), Index(None, "expires_at"), Index(None, "used_at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH), unique=True)
    created_at: Mapped[datetime]
    #: To some minutes, since it is written only now and then.
    used_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    #: What the browser showed when it signed in.
    address: Mapped[str] = mapped_column(String(ADDRESS_LENGTH))
    agent: Mapped[str] = mapped_column(String(AGENT_LENGTH))

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.TOKEN, f"sign-in {self.id}", owner_id=self.person_id)


class PersonalToken(Base):
    """What a program shows to act for a person, within scopes and until it expires."""

    __tablename__ = "personal_tokens"
    __table_args__ = (Index(None, "person_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(NAME_LENGTH))
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH), unique=True)
    #: Their names, with a space between.
    scopes: Mapped[str] = mapped_column(String(SCOPES_LENGTH))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    #: To the hour, since it is written only now and then.
    used_at: Mapped[datetime | None]

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.TOKEN, str(self.id), owner_id=self.person_id)


class OneTimeLink(Base):
    """A link that is good once: to become the first administrator, or for a new password."""

    __tablename__ = "one_time_links"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    #: Of `slapos.master.identity.links.LinkKind`.
    kind: Mapped[str] = mapped_column(String(20))
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH), unique=True)
    person_id: Mapped[int | None] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime]


class Invitation(Base):
    """A role that waits for somebody; whoever has its link and its e-mail address can take it."""

    __tablename__ = "invitations"
    __table_args__ = (Index(None, "project_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(String(REFERENCE_LENGTH), unique=True)
    #: None: everywhere.
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    role: Mapped[str] = mapped_column(String(ROLE_LENGTH))
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH))
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH), unique=True)
    invited_by_id: Mapped[int | None] = mapped_column(ForeignKey("persons.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    project: Mapped[Project | None] = relationship()
    invited_by: Mapped[Person | None] = relationship()

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.INVITATION, self.reference, project_id=self.project_id)


class SecondFactor(Base):
    """What makes the codes that somebody types beside her password (RFC 6238)."""

    __tablename__ = "second_factors"

    person_id: Mapped[int] = mapped_column(
        ForeignKey("persons.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    #: Sealed by a SecretBox.
    sealed: Mapped[str] = mapped_column(String(300))
    #: None until she has typed a first code: then it is asked for.
    confirmed_at: Mapped[datetime | None]
    #: Of the last code that counted; none counts twice.
    last_step: Mapped[int]

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.TOKEN, "second factor", owner_id=self.person_id)


class RecoveryCode(Base):
    """What is typed instead of a code, once, by who has lost the device that makes them."""

    __tablename__ = "recovery_codes"
    __table_args__ = (Index(None, "person_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH), unique=True)


class ExternalAccount(Base):
    """An account at an OpenID provider by which a person signs in."""

    __tablename__ = "external_accounts"
    __table_args__ = (UniqueConstraint("issuer", "external_id"), Index(None, "person_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("persons.id", ondelete="CASCADE"))
    issuer: Mapped[str] = mapped_column(String(500))
    #: `sub` of the provider: the only thing of an account there that never changes.
    external_id: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        return Subject(Kind.TOKEN, f"account at {self.issuer}", owner_id=self.person_id)


class OpenidAttempt(Base):
    """A browser that was sent to an OpenID provider and has not come back."""

    __tablename__ = "openid_attempts"
    __table_args__ = (Index(None, "expires_at"),)

    #: Of the state that the provider sends back.
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH), primary_key=True)
    nonce: Mapped[str] = mapped_column(String(HASH_LENGTH))
    #: Of PKCE (RFC 7636); it is of no use without the code that only the browser gets.
    verifier: Mapped[str] = mapped_column(String(128))
    #: Where the browser goes on to.
    path: Mapped[str] = mapped_column(String(2000))
    expires_at: Mapped[datetime]


class Attempts(Base):
    """How often somebody tried to sign in, for an account or from an address, and failed."""

    __tablename__ = "sign_in_attempts"
    __table_args__ = (Index(None, "last_at"),)

    #: A hash, of an e-mail address that may have no account, or of a network address.
    key: Mapped[str] = mapped_column(String(HASH_LENGTH), primary_key=True)
    failures: Mapped[int]
    last_at: Mapped[datetime]
    #: No attempt is looked at before.
    blocked_until: Mapped[datetime | None]
