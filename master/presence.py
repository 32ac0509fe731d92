"""Who is at work on a database: what changes it as a whole is done by somebody who is alone there.

A web process on PostgreSQL has connections, which tell its name; on SQLite, it holds a lock on a
file beside the database as long as it lives.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from slapos.protocol.errors import SlapOSError

#: What our connections to PostgreSQL call themselves.
APPLICATION = "slapos-master"

_OTHERS = text(
    "SELECT coalesce(host(client_addr), 'this machine'), count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND application_name = :application GROUP BY 1 ORDER BY 1"
)


class InUse(SlapOSError):
    """Others are at work on the database."""

    code = "in_use"


@contextmanager
def at_work(url: URL) -> Iterator[None]:
    """Be at work on a database; waits while somebody is alone there."""
    path = _lock_file(url)
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Be alone on a database; raise InUse when somebody is at work there.

    On PostgreSQL the lock that migrations take has to be held, for nobody to begin meanwhile.
    """
    path = _lock_file(connection.engine.url)
    if path is None:
        _refuse_others(connection)
        yield
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(
                "a master is at work on this database: end `slapos master start` first"
            ) from None
        yield


def _refuse_others(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    others = connection.execute(_OTHERS, {"application": APPLICATION}).all()
    if others:
        where = ", ".join(f"{host} ({count} connections)" for host, count in others)
        raise InUse(
            f"masters or commands of slapos are at work on this database, from {where}: end each "
            "`slapos master start` first"
        )


def _lock_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(f"{url.database}.use")
