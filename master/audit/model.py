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
