"""Numbers for references such as SOFTINST-7: each is given out once, with gaps, never again."""

from collections import deque

from sqlalchemy import delete, event, insert, text
from sqlalchemy.orm import Mapped, Session, mapped_column, sessionmaker

from slapos.master.database import Base

#: How many numbers a process takes at once; those that it has not given out end with it.
BLOCK = 50

_KEPT, _FRESH = "slapos_numbers", "slapos_fresh_numbers"


class ReferenceNumber(Base):
    """What counts: the sequence of its key on PostgreSQL, where it has no rows; a row on SQLite."""

    __tablename__ = "reference_numbers"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)


_FROM_SEQUENCE = text(
    "SELECT nextval(pg_get_serial_sequence('reference_numbers', 'id')) "
    "FROM generate_series(1, :count)"
)
_NEXT_ROW = insert(ReferenceNumber).returning(ReferenceNumber.id)


def keep_numbers(sessions: sessionmaker[Session]) -> None:
    """Have the sessions of this maker take numbers by the block, and share what is left of it."""
    sessions.configure(info={**sessions.kw["info"], _KEPT: deque()})
    event.listen(sessions, "after_commit", _keep)
    event.listen(sessions, "after_soft_rollback", _lose)


def next_number(session: Session) -> int:
    """Return a number that no reference of this master has."""
    kept: deque[int] | None = session.info.get(_KEPT)
    if kept is None:
        return _take(session, 1)[0]
    fresh: deque[int] | None = session.info.get(_FRESH)
    for numbers in (fresh, kept):
        if numbers:
            try:
                return numbers.popleft()
            except IndexError:  # another thread has just taken the last one
                continue
    taken = deque(_take(session, BLOCK))
    session.info[_FRESH] = taken
    return taken.popleft()


def _take(session: Session, count: int) -> list[int]:
    if session.get_bind().dialect.name == "postgresql":
        return [int(each) for each in session.execute(_FROM_SEQUENCE, {"count": count}).scalars()]
    first = int(session.execute(_NEXT_ROW).scalar_one())
    if count > 1:
        session.execute(insert(ReferenceNumber).values(id=first + count - 1))
    session.execute(delete(ReferenceNumber))
    return list(range(first, first + count))


def _keep(session: Session) -> None:
    """Share what is left of a block: what an undone transaction of SQLite took is taken again."""
    if not session.in_nested_transaction():
        session.info[_KEPT].extend(session.info.pop(_FRESH, ()))


def _lose(session: Session, _undone: object) -> None:
    session.info.pop(_FRESH, None)
