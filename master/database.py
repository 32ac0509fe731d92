"""The database: SQLite or PostgreSQL, one session per request, reading or writing.

SQLite: a writing session takes the write lock when it begins, and waits for it; so two of them
never find out at their end that they have hindered each other ("database is locked").
PostgreSQL: a reading session sees one moment; a writing session sees what is committed, and locks
the rows that it goes by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from select import POLLIN, poll
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Engine,
    MetaData,
    TypeDecorator,
    create_engine,
    event,
    inspect,
    literal_column,
)
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from slapos.master.identity.caller import LOCAL, Caller, session_info
from slapos.master.presence import APPLICATION

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
WAIT_FOR_LOCK = 30.0
#: What PostgreSQL says when two transactions cannot both be: serialization failure, deadlock,
#: unique violation (another one has just made the same thing), foreign key violation (another one
#: has just removed what is referred to: it is not found when that is done again).
PASSING_SQLSTATES = frozenset({"40001", "40P01", "23505", "23503"})
BEGIN = "slapos_begin"
_FOLLOWERS = "slapos_followers"
#: PostgreSQL refuses to look for a larger one in an integer column.
LARGEST_ID = 2**31 - 1


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC, to the microsecond: SQLite forgets the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """What a value is."""
        return datetime

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The root of the mapped classes."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UTCDateTime, dict[str, Any]: JSON}  # noqa: RUF012

    def seen_by(self) -> int | None:
        """Return the id of the node that is told of this object, None when none is."""
        return None

    def is_acted_on(self) -> bool:
        """Return whether what has changed of this object gives its node something to do."""
        return True

    def has_changed(self, name: str) -> bool:
        """Return whether a field has another value than the database."""
        return inspect(self).attrs[name].history.has_changes()


def constant(value: str | int) -> ColumnElement[Any]:
    """Return a word or a number that is part of a statement, and no value of it.

    PostgreSQL keeps the plan of a statement only if that is as good for all its values, and uses an
    index over some rows only if the statement says that it asks for these.
    """
    return literal_column(f"'{value}'" if isinstance(value, str) else str(value))


#: Is told of things that a session has made.
Follower = Callable[[Session, Sequence[Base]], None]


def follow_made(sessions: sessionmaker[Session], follower: Follower) -> None:
    """Have a follower told of what the sessions of this maker make beside the mapper's flush."""
    followers = [*sessions.kw["info"].get(_FOLLOWERS, ()), follower]
    sessions.configure(info={**sessions.kw["info"], _FOLLOWERS: followers})


def tell_made(session: Session, things: Sequence[Base]) -> None:
    """Say that a session has made things by a statement of its own, which no flush shows."""
    for follower in session.info.get(_FOLLOWERS, ()):
        follower(session, things)


@dataclass(frozen=True)
class Database:
    """An engine and its two kinds of sessions; `looking` is for single statements that read.

    So is `glancing`, where it is no harm when one fails: it does not try its connections first.
    """

    engine: Engine
    looking: Engine
    glancing: Engine
    reading: sessionmaker[Session]
    writing: sessionmaker[Session]
    endings: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Let the connections go."""
        for end in self.endings:
            end()
        self.engine.dispose()
        self.glancing.dispose()


def open_database(
    url: str, *, threads: int = 8, wait: float = WAIT_FOR_LOCK, caller: Caller | None = LOCAL
) -> Database:
    """Return the database at `url`, ready for `threads` sessions at a time; connects later.

    `wait` is how long a writer waits for SQLite's lock, in seconds. `caller` is whom sessions act
    for that are told nobody else; None where each has to be told.
    """
    if url.startswith("sqlite"):
        engine = create_engine(
            url, pool_size=threads, pool_use_lifo=True, connect_args={"timeout": wait}
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        reading = engine.execution_options(**{BEGIN: "BEGIN"})
        writing = engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
        looking = engine.execution_options(**{BEGIN: ""})
        glancing: Engine = looking
    else:
        engine = create_engine(
            url,
            pool_size=threads,
            pool_use_lifo=True,
            connect_args={"application_name": APPLICATION},
        )
        event.listen(engine, "checkout", _refuse_broken)
        reading = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        writing = engine.execution_options()
        looking = engine.execution_options(isolation_level="AUTOCOMMIT")
        glancing = create_engine(
            url,
            pool_size=threads,
            pool_use_lifo=True,
            pool_reset_on_return=None,
            isolation_level="AUTOCOMMIT",
            connect_args={"application_name": APPLICATION},
        )
    return Database(
        engine,
        looking,
        glancing,
        sessionmaker(reading, expire_on_commit=False, info=session_info(caller)),
        sessionmaker(writing, expire_on_commit=False, info=session_info(caller)),
    )


def _refuse_broken(connection: Any, _record: Any, _proxy: Any) -> None:
    """Have the pool connect anew where PostgreSQL has ended a connection.

    That shows without asking it, which would take as long as a statement: on a connection that
    nobody uses nothing arrives but that it ends.
    """
    arrivals = poll()
    if not connection.closed:
        arrivals.register(connection.fileno(), POLLIN)
    if connection.closed or arrivals.poll(0):
        raise DisconnectionError("the server has ended this connection")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver is kept from beginning transactions by itself: `_begin_sqlite` does.
    connection.isolation_level = None
    for pragma in ("foreign_keys=ON", "synchronous=FULL"):  # WAL is set by the migrations
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    statement = connection.get_execution_options().get(BEGIN, "BEGIN")
    if statement:
        connection.exec_driver_sql(statement)


def is_passing(error: DBAPIError) -> bool:
    """Return whether the same transaction may well succeed when it is tried again."""
    cause: Any = error.orig
    if getattr(cause, "sqlstate", None) in PASSING_SQLSTATES:
        return True
    # SQLite's only: names such as SQLITE_BUSY_SNAPSHOT, SQLITE_CONSTRAINT_UNIQUE.
    name = str(getattr(cause, "sqlite_errorname", ""))
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or name.endswith("_UNIQUE")
