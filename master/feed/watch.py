"""How a master hears of changes that other processes make in its database.

A watch calls back from a thread of its own, with the ids of nodes, or with None when it cannot tell
which: then all that are waited for are looked at. It never misses a change for ever: whenever it
begins to watch, and begins again after a failure, it says None.
"""

import logging
import threading
from collections.abc import Callable, Collection
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from slapos.master.nodes.exchange import CHANNEL

#: Seconds between two looks whether SQLite's file has changed, while somebody waits.
GLANCE = 0.1
#: Seconds after which PostgreSQL is asked whether it is still there.
SILENCE = 15.0
#: Seconds before a watch that failed begins again.
PAUSE = 1.0

Wake = Callable[[Collection[int] | None], None]
log = logging.getLogger(__name__)


class Watch(Protocol):
    """Tells of changes, while somebody waits."""

    def start(self, wake: Wake) -> None:
        """Begin."""
        ...

    def attend(self, *, is_wanted: bool) -> None:
        """Say whether anybody waits."""
        ...

    def stop(self) -> None:
        """End, at the latest with the process."""
        ...


class _Thread:
    """A thread that watches, again and again until it is stopped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted = threading.Event()
        self._stopped = threading.Event()

    def start(self, wake: Wake) -> None:
        threading.Thread(target=self._run, args=(wake,), name="feed-watch", daemon=True).start()

    def attend(self, *, is_wanted: bool) -> None:
        if is_wanted:
            self._wanted.set()
        else:
            self._wanted.clear()

    def stop(self) -> None:
        self._stopped.set()
        self._wanted.set()

    def _run(self, wake: Wake) -> None:
        failed = False
        # What the driver raises where SQLAlchemy does not stand in between.
        failure: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        while not self._stopped.is_set():
            try:
                self._watch(wake)
                failed = False
            except (SQLAlchemyError, failure) as error:
                if not failed:
                    log.warning("the change feed cannot watch the database: %s", error)
                failed = True
                self._stopped.wait(PAUSE)

    def _watch(self, wake: Wake) -> None:
        raise NotImplementedError


class SqliteWatch(_Thread):
    """Looks at the counter of SQLite's file, which others' commits change."""

    def _watch(self, wake: Wake) -> None:
        self._wanted.wait()
        with self._engine.connect() as connection:
            seen = None
            while self._wanted.is_set() and not self._stopped.is_set():
                found = connection.exec_driver_sql("PRAGMA data_version").scalar()
                if found != seen:
                    seen = found
                    wake(None)
                self._stopped.wait(GLANCE)


class PostgresqlWatch(_Thread):
    """Is told by PostgreSQL which nodes changed; all masters notify it as they commit."""

    def _watch(self, wake: Wake) -> None:
        with self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute(f"LISTEN {CHANNEL}")
            try:
                while not self._stopped.is_set():
                    wake(None)  # also for what was said between two listenings
                    for told in driver.notifies(timeout=SILENCE):
                        wake([int(told.payload)])
                    driver.execute("SELECT 1")
            finally:
                connection.invalidate()  # nobody else is to get one that listens


def watch_of(engine: Engine) -> Watch:
    """Return the watch of a database."""
    is_sqlite = engine.dialect.name == "sqlite"
    return SqliteWatch(engine) if is_sqlite else PostgresqlWatch(engine)
