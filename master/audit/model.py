"""What is in the audit log."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from slapos.master.database import Base

NAME_LENGTH = 200


class Act(StrEnum):
    """What was done with a thing."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    #: Somebody tried, and was not let in.
    REFUSE = "refuse"


class AuditEntry(Base):
    """That somebody has made, changed or deleted something.

    It names things by their words, not by keys of other tables: what it tells stays true when they
    are gone. `changes` are fields: what it was and what it is then, None for a value that is not
    told. There is one index for each way of looking, with the order of the pages in it.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "at", "id"),
        Index(None, "project_id", "at", "id"),
        Index(None, "owner_id", "at", "id"),
        Index(None, "object", "at", "id"),
        Index(None, "caller", "at", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True
    )
    at: Mapped[datetime]
    caller_kind: Mapped[str] = mapped_column(String(20))
    caller: Mapped[str] = mapped_column(String(NAME_LENGTH))
    request_id: Mapped[str | None] = mapped_column(String(64))
    act: Mapped[str] = mapped_column(String(10))
    object_kind: Mapped[str] = mapped_column(String(40))
    object: Mapped[str] = mapped_column(String(NAME_LENGTH))
    project_id: Mapped[int | None]
    owner_id: Mapped[int | None]
    changes: Mapped[dict[str, Any]] = mapped_column(JSON)


class Refusal(Base):
    """How often the same was refused from one address since it is counted.

    The first time is in the log at once, the others when they are no more counted together: so
    nobody fills the log by trying.
    """

    __tablename__ = "refusals"
    __table_args__ = (Index(None, "since"),)

    #: The code of the error.
    reason: Mapped[str] = mapped_column(String(40), primary_key=True)
    object_kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    #: What of, "" where that is nothing that is there.
    object: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    #: Or what its neighbours have in common; "" for all others, when there are too many.
    address: Mapped[str] = mapped_column(String(60), primary_key=True)
    project_id: Mapped[int | None]
    owner_id: Mapped[int | None]
    since: Mapped[datetime]
    last_at: Mapped[datetime]
    count: Mapped[int]
