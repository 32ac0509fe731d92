"""Numbers for references such as SOFTINST-7: each is given out once, with gaps, never again."""

from sqlalchemy import delete, insert, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from slapos.master.database import Base


class ReferenceNumber(Base):
    """What counts: the sequence of its key on PostgreSQL, where it has no rows; a row on SQLite."""

    __tablename__ = "reference_numbers"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)


_FROM_SEQUENCE = text("SELECT nextval(pg_get_serial_sequence('reference_numbers', 'id'))")
_NEXT_ROW = insert(ReferenceNumber).returning(ReferenceNumber.id)


def next_number(session: Session) -> int:
    """Return a number that no reference of this master has."""
    if session.get_bind().dialect.name == "postgresql":
        return int(session.execute(_FROM_SEQUENCE).scalar_one())
    number = int(session.execute(_NEXT_ROW).scalar_one())
    session.execute(delete(ReferenceNumber))
    return number
