"""Bringing a database to the schema of this version, whole or not at all.

It happens in one transaction under a lock, so that two masters that start at once, or one that is
killed on the way, leave no half schema. A database that is not ours is left as it is.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from slapos.master import presence
from slapos.master.database import BEGIN, Database
from slapos.protocol.errors import SlapOSError

FOLDER = Path(__file__).parent
#: A revision is the number that its file begins with, so no need to load them to know them.
REVISIONS = sorted(path.name.split("_")[0] for path in (FOLDER / "versions").glob("[0-9]*.py"))
HEAD = REVISIONS[-1]
#: An arbitrary number that all masters of one PostgreSQL agree on.
ADVISORY_LOCK = 7_357_201
PROXY_REMEDY, MASTER_REMEDY = "`slapos proxy start`", "`slapos master upgrade`"


class DatabaseUnusable(SlapOSError):
    """The database cannot be opened, or is not ours, or of a newer version."""

    code = "database_unusable"


def upgrade(database: Database, revision: str = HEAD, *, is_alone: bool = False) -> None:
    """Bring the database to this version's schema; raise DatabaseUnusable, leaving it untouched.

    With `is_alone`, raise InUse when a master is at work on it and there is something to do. An
    older `revision` is for tests of migrations.
    """
    shown = database.engine.url.render_as_string(hide_password=True)
    try:
        with database.reading() as session:  # a look first: mostly there is nothing to do
            found = _checked_version(session.connection(), shown)
    except (DBAPIError, sqlite3.Error) as error:
        raise DatabaseUnusable(_why(database, shown, error)) from error
    if found == revision:
        return
    with under_lock(database) as connection:
        if _checked_version(connection, shown) != revision:
            with presence.alone(connection) if is_alone else nullcontext():
                run(connection, revision)


@contextmanager
def under_lock(database: Database) -> Iterator[Connection]:
    """Give a connection in a transaction in which the whole schema may be changed.

    Nobody else does so meanwhile, and nobody begins to work on the database; it is committed at the
    end. Raises DatabaseUnusable.
    """
    shown = database.engine.url.render_as_string(hide_password=True)
    try:
        with database.engine.connect() as connection:
            is_sqlite = database.engine.dialect.name == "sqlite"
            if is_sqlite:
                # Neither can be set inside a transaction; the journal's mode stays set in the file.
                # A table that is made anew is dropped for a moment, and its dependents are not to
                # be.
                _pragmas(connection, "journal_mode=WAL", "foreign_keys=OFF")
            try:
                locked = connection.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
                with locked.begin():
                    if not is_sqlite:
                        locked.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
                    yield locked
                    if is_sqlite:
                        _check_foreign_keys(locked, shown)
            finally:
                if is_sqlite:
                    _pragmas(connection, "foreign_keys=ON")
    except (DBAPIError, sqlite3.Error) as error:
        raise DatabaseUnusable(_why(database, shown, error)) from error


def check(database: Database, *, remedy: str = PROXY_REMEDY) -> None:
    """Raise DatabaseUnusable unless the database has this version's schema; nothing is written.

    `remedy` names what brings it there.
    """
    shown = database.engine.url.render_as_string(hide_password=True)
    path = database.engine.url.database
    if database.engine.dialect.name == "sqlite" and not Path(path or "").exists():
        raise DatabaseUnusable(f"there is no database {shown}; {remedy} makes it")
    try:
        found = _awaited_version(database, shown)
    except DBAPIError as error:
        raise DatabaseUnusable(_why(database, shown, error)) from error
    if found != HEAD:
        raise DatabaseUnusable(
            f"{shown} has the schema {found or 'of nothing'}, not {HEAD}; {remedy} brings it there"
        )


def found_version(database: Database) -> str | None:
    """Return the revision of a database's schema, None when there is nothing, or no database.

    Raises DatabaseUnusable when it cannot be reached, or is another program's or a newer one's.
    """
    shown = database.engine.url.render_as_string(hide_password=True)
    path = database.engine.url.database
    if database.engine.dialect.name == "sqlite" and not Path(path or "").exists():
        return None
    try:
        return _awaited_version(database, shown)
    except DBAPIError as error:
        raise DatabaseUnusable(_why(database, shown, error)) from error


def is_empty(database: Database) -> bool:
    """Return whether there is nothing in the database yet. Raises as found_version."""
    return found_version(database) is None


def refuse_others(database: Database) -> None:
    """Raise InUse when a master is at work on the database."""
    with database.engine.connect() as connection, presence.alone(connection):
        pass


def _awaited_version(database: Database, shown: str) -> str | None:
    """Return the checked version, once nobody changes it: who begins to work then is seen."""
    if database.engine.dialect.name == "sqlite":
        with database.reading() as session:
            return _checked_version(session.connection(), shown)
    with database.writing() as session:  # which sees what was committed while it waited
        session.execute(text(f"SELECT pg_advisory_xact_lock_shared({ADVISORY_LOCK})"))
        return _checked_version(session.connection(), shown)


def version(connection: Connection) -> str | None:
    """Return the revision of a database's schema, None when it has none of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _check_foreign_keys(connection: Connection, shown: str) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise DatabaseUnusable(
            f"{shown} has a row of {broken[0]} without the row of {broken[2]} that it belongs to; "
            "it is left as it was: restore a backup, or mend that row"
        )


def _pragmas(connection: Connection, *pragmas: str) -> None:
    dbapi: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
    for pragma in pragmas:
        dbapi.execute(f"PRAGMA {pragma}")


def run(connection: Connection, revision: str) -> None:
    """Run the migrations up to a revision, in the connection's transaction."""
    # Imported here: most starts find nothing to do, and need not wait for Alembic.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    configuration = Config()
    configuration.set_main_option("script_location", str(FOLDER))
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, revision)


def _checked_version(connection: Connection, shown: str) -> str | None:
    found = version(connection)
    if found is None and inspect(connection).get_table_names():
        raise DatabaseUnusable(
            f"{shown} holds another program's tables (slapproxy's cannot be taken over); "
            "name another database with database_uri or --database-uri"
        )
    if found is not None and found not in REVISIONS:
        raise DatabaseUnusable(
            f"{shown} was last used by a newer version of slapos (its schema is {found}, this "
            f"version knows up to {HEAD}); use that version, or another database"
        )
    return found


def _why(database: Database, shown: str, error: DBAPIError | sqlite3.Error) -> str:
    cause = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    begin = f"the database {shown} cannot be used: {cause}"
    if database.engine.dialect.name != "sqlite":
        return f"{begin}; is the server running, and may this user create tables there?"
    path = Path(database.engine.url.database or "")
    if "unable to open" in cause:
        if not path.parent.is_dir():
            return f"{begin}; the folder {path.parent} does not exist: make it first"
        return f"{begin}; may this user write in {path.parent}?"
    if "locked" in cause:
        return f"{begin}; another program holds it: end that one, or wait until it is done"
    if "readonly" in cause:
        return f"{begin}; the file and its folder have to be writable for this user"
    return f"{begin}; name another file with database_uri or --database-uri"
