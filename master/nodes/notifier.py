"""Telling the other masters of one PostgreSQL which nodes have something to do.

It is done after the commit, in a transaction of its own that has nothing to write to the disk:
transactions that notify are committed one after another, so that none could share its write with
another one (PostgreSQL holds a lock from before their commit until after it).
"""

import logging
from collections.abc import Collection
from threading import Event, Lock, Thread
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from slapos.master.database import Database
from slapos.master.nodes.exchange import CHANNEL, Announcer

NOTIFY = text(
    "SELECT pg_notify(:channel, CAST(id AS text)) FROM unnest(CAST(:ids AS integer[])) AS id"
)

#: Seconds after telling in which more is gathered: each telling takes time from those who work.
GATHERING = 0.01

log = logging.getLogger(__name__)


def announcer_of(database: Database) -> Announcer:
    """Return what passes on which nodes have something to do: on PostgreSQL also to others."""
    announcer = Announcer()
    if database.engine.dialect.name == "postgresql":
        notifier = Notifier(database.looking)
        announcer.listeners.append(notifier)
        database.endings.append(notifier.end)
    return announcer


class Notifier:
    """Tells of nodes, those of several commits at once when there are many.

    It has a thread as long as there is something to tell.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: What the driver raises where SQLAlchemy is not in between.
        driver: Any = engine.dialect.loaded_dbapi
        self._failure: type[Exception] = driver.Error
        self._lock = Lock()
        self._ids: set[int] = set()
        self._is_ending = Event()
        self._thread: Thread | None = None

    def __call__(self, node_ids: Collection[int]) -> None:
        """Have nodes told of; it has just been committed that they have something to do."""
        with self._lock:
            self._ids.update(node_ids)
            if self._thread is None:
                thread = Thread(target=self._tell_all, name="notifier")
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads: it is told with the next change
                    log.warning("other masters cannot be told of changes yet: %s", error)
                    return
                self._thread = thread

    def end(self) -> None:
        """Wait until all is told."""
        self._is_ending.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _tell_all(self) -> None:
        while ids := self._take():
            # A connection that has just been ended shows it when it is used.
            if not self._is_told(ids) and not self._is_told(ids):
                # Who listens has mostly lost its connection too, and looks at all when it has
                # another one; and each node asks anew within a minute.
                log.warning("other masters cannot be told of changes; the database fails")
            self._is_ending.wait(GATHERING)

    def _is_told(self, ids: Collection[int]) -> bool:
        try:
            with self._engine.connect() as connection:
                connection.execute(NOTIFY, {"channel": CHANNEL, "ids": sorted(ids)})
        except (SQLAlchemyError, self._failure) as error:
            log.info("telling other masters: %s", error)
            return False
        except Exception:  # a thread that ended by it would leave all later changes untold
            log.exception("telling other masters failed")
            return False
        return True

    def _take(self) -> Collection[int]:
        with self._lock:
            ids, self._ids = self._ids, set()
            if not ids:
                self._thread = None
            return ids
