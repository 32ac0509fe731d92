"""How far tasks have come, and what they are wanted for."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from slapos.master.database import Base

NAME_LENGTH = 60
KEY_LENGTH = 250
#: Characters of an error that are kept: the end of it.
ERROR_LENGTH = 1000
#: The time of marks that need not wait.
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)


class TaskState(Base):
    """How a task is doing. Whoever holds the lock of its row is the one that does it."""

    __tablename__ = "tasks"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    #: When it looks at everything next, unless it is sensed before; None: only when it is sensed.
    next_at: Mapped[datetime | None]
    #: Where looking at everything goes on; "" when it is not on the way.
    resume: Mapped[str] = mapped_column(Text, default="")
    began_at: Mapped[datetime | None]
    #: How long the last run took, and how much it did: all of its transactions together.
    milliseconds: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(BigInteger, default=0)
    #: How often it has failed since it last went well, and why.
    failures: Mapped[int] = mapped_column(default=0)
    failed_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(Text, default="")

    def begin(self, now: datetime) -> None:
        """Begin a run."""
        self.began_at, self.milliseconds, self.done = now, 0, 0

    def went_well(self, count: int, seconds: float) -> None:
        """Count what a transaction of this run did."""
        self.milliseconds += round(seconds * 1000)
        self.done += count
        self.total += count
        self.failures = 0

    def went_wrong(self, now: datetime, error: BaseException | None) -> None:
        """Remember a failure; what failed and when stays to be seen after it went well again."""
        self.failures += 1
        self.failed_at = now
        said = f"{type(error).__name__}: {error}"
        self.error = said.replace("\0", "")[-ERROR_LENGTH:]


class TaskMark(Base):
    """That a task is wanted for a key, or for everything (the key ""), not before some time.

    It is put in together with the change that calls for it, and taken out together with the work.
    """

    __tablename__ = "task_marks"
    __table_args__ = (Index(None, "name", "not_before"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    key: Mapped[str] = mapped_column(String(KEY_LENGTH))
    not_before: Mapped[datetime]
    #: How often it failed for this mark.
    attempts: Mapped[int] = mapped_column(default=0)
