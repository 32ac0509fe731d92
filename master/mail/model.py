"""E-mail that waits to be sent, and where people are known to sign in from."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from slapos.master.database import Base

RECIPIENT_LENGTH = 320
#: A SHA-256 in hexadecimal digits.
HASH_LENGTH = 64


class Mail(Base):
    """An e-mail that waits to be sent; it goes when it is."""

    __tablename__ = "mails"
    __table_args__ = (
        Index(None, "next_at"),
        Index(None, "made_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True
    )
    #: Of `slapos.master.mail.texts.Occasion`.
    occasion: Mapped[str] = mapped_column(String(40))
    recipient: Mapped[str] = mapped_column(String(RECIPIENT_LENGTH))
    #: What its text is made of, by a SecretBox: there may be a link that opens an account.
    sealed: Mapped[str] = mapped_column(Text)
    made_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]


class KnownAddress(Base):
    """Where somebody has signed in from lately; only a hash of the address is kept."""

    __tablename__ = "known_addresses"
    __table_args__ = (Index(None, "seen_at"),)

    person_id: Mapped[int] = mapped_column(
        ForeignKey("persons.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH), primary_key=True)
    seen_at: Mapped[datetime]
