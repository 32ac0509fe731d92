"""The master without its web server: what a command on the same machine works on.

It acts for the master itself, beside web processes that may run: what it changes is counted for
nodes, and told to those that wait, as a request's changes are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from slapos.master import migrations
from slapos.master.audit.recording import record_changes
from slapos.master.database import Database, is_passing, open_database
from slapos.master.identity.caller import SYSTEM
from slapos.master.mail.outbox import notices
from slapos.master.nodes.exchange import count_exchanges
from slapos.master.settings import Settings
from slapos.master.webhooks.outbox import put
from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock, SystemClock
from slapos.system.identifier import Identifiers, SystemIdentifiers

Result = TypeVar("Result")

ATTEMPTS = 10
#: Seconds before the second attempt at a transaction; twice that before the third, and so on.
BACK_OFF = 0.02


class DatabaseBusy(SlapOSError):
    """Others got in the way of a transaction too often."""

    code = "busy"


@dataclass(frozen=True, kw_only=True)
class OfflineMaster:
    """The settings, the database and what services need besides."""

    settings: Settings
    database: Database
    clock: Clock
    identifiers: Identifiers

    def read(self, work: Callable[[Session], Result]) -> Result:
        """Return what `work` finds in the database, at one moment."""
        with self.database.reading() as session:
            return work(session)

    def write(self, work: Callable[[Session], Result]) -> Result:
        """Do `work` in one transaction, again when another got in its way; return its result."""
        for attempt in range(ATTEMPTS):
            if attempt:
                pause = BACK_OFF * 2**attempt * (0.5 + self.identifiers.fraction())
                self.clock.sleep(pause)
            try:
                with self.database.writing() as session:
                    result = work(session)
                    session.commit()
                    return result
            except StaleDataError:
                continue
            except DBAPIError as error:
                if not is_passing(error):
                    raise
        raise DatabaseBusy("others change the same things all the time; try again in a moment")


def open_offline(
    settings: Settings, clock: Clock | None = None, identifiers: Identifiers | None = None
) -> OfflineMaster:
    """Return the master of some settings; raise DatabaseUnusable unless its schema is ours."""
    clock, identifiers = clock or SystemClock(), identifiers or SystemIdentifiers()
    database = open_database(settings.database_url, threads=2, caller=SYSTEM)
    migrations.check(database, remedy=migrations.MASTER_REMEDY)
    count_exchanges(database.writing, identifiers)
    record_changes(database.writing, clock, put, notices(settings, clock))
    return OfflineMaster(settings=settings, database=database, clock=clock, identifiers=identifiers)
