"""How a master hears of changes that other processes make in its database.

A watch calls back with the ids of nodes, or with None when it cannot tell which: then all that are
waited for are looked at. It misses no change for ever: whenever it begins to watch, and begins
again after a failure, it says None.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from slapos.master.nodes.exchange import CHANNEL
from slapos.master.presence import APPLICATION

#: Seconds between two looks whether SQLite's file has changed, while somebody waits.
GLANCE = 0.1
#: Seconds after which PostgreSQL is asked whether it is still there.
SILENCE = 15.0
#: Seconds before a watch that failed begins again.
PAUSE = 1.0

Wake = Callable[[Collection[int] | None], None]
Others = Mapping[str, Callable[[], None]]
log = logging.getLogger(__name__)


class Watch(Protocol):
    """Tells of changes, while somebody waits."""

    async def run(self, wake: Wake) -> None:
        """Watch until it is cancelled or the database fails."""
        ...

    def attend(self, *, is_wanted: bool) -> None:
        """Say whether anybody waits."""
        ...


class SqliteWatch:
    """Looks at the counter of SQLite's file, which others' commits change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted = asyncio.Event()

    def attend(self, *, is_wanted: bool) -> None:
        """Look only while somebody waits."""
        if is_wanted:
            self._wanted.set()
        else:
            self._wanted.clear()

    async def run(self, wake: Wake) -> None:
        """Watch until it is cancelled or the database fails."""
        while True:
            await self._wanted.wait()
            with self._engine.connect() as connection:
                seen = None
                while self._wanted.is_set():
                    found = connection.exec_driver_sql("PRAGMA data_version").scalar()
                    if found != seen:
                        seen = found
                        wake(None)
                    await asyncio.sleep(GLANCE)


class PostgresqlWatch:
    """Is told by PostgreSQL which nodes changed; all masters notify it as they commit.

    `others` are called when something is said on other channels, so that one connection is enough.
    """

    def __init__(self, engine: Engine, others: Others) -> None:
        self._engine = engine
        self._others = others

    def attend(self, *, is_wanted: bool) -> None:
        """Listen all the time, as that costs nothing."""

    async def run(self, wake: Wake) -> None:
        """Watch until it is cancelled or the database fails."""
        dialect = self._engine.dialect
        _, parameters = dialect.create_connect_args(self._engine.url)
        driver: Any = dialect.loaded_dbapi
        parameters["application_name"] = APPLICATION
        connection = await driver.AsyncConnection.connect(autocommit=True, **parameters)
        async with connection:
            for channel in (CHANNEL, *self._others):
                await connection.execute(f"LISTEN {channel}")
            while True:
                wake(None)  # also for what was said between two listenings
                async for told in connection.notifies(timeout=SILENCE):
                    if told.channel == CHANNEL:
                        wake([int(told.payload)])
                    else:
                        self._others[told.channel]()
                await connection.execute("SELECT 1")


def watch_of(engine: Engine, others: Others = MappingProxyType({})) -> Watch:
    """Return the watch of a database; SQLite says nothing on `others`."""
    is_sqlite = engine.dialect.name == "sqlite"
    return SqliteWatch(engine) if is_sqlite else PostgresqlWatch(engine, others)


async def keep_watching(watch: Watch, failure: type[Exception], wake: Wake) -> None:
    """Watch for ever; `failure` is what the driver raises where SQLAlchemy is not in between."""
    is_told = False
    while True:
        try:
            await watch.run(wake)
        except (SQLAlchemyError, failure) as error:
            if not is_told:
                log.warning("the change feed cannot watch the database: %s", error)
            is_told = True
        await asyncio.sleep(PAUSE)
