"""What a master of the full profile stands on: made where it is missing, never replaced."""

import logging

from sqlalchemy.orm import Session

from slapos.master import migrations
from slapos.master.certificates import authorities
from slapos.master.certificates.authorities import PURPOSE, Issuing
from slapos.master.database import Database, open_database
from slapos.master.identity import links
from slapos.master.identity.caller import SYSTEM
from slapos.master.identity.secret_box import SecretBox
from slapos.master.offline import OfflineMaster
from slapos.master.secret_file import SecretUnusable, make_secret_file, read_secret
from slapos.master.settings import Settings
from slapos.system.clock import Clock, SystemClock
from slapos.system.identifier import Identifiers, SystemIdentifiers

logger = logging.getLogger(__name__)


def initialise(
    settings: Settings, identifiers: Identifiers | None = None, clock: Clock | None = None
) -> None:
    """Make the data directory, the secret file, the tables and the certificate authority.

    It may be done again, and at once by several.

    A database that holds something keeps its schema: see `slapos master upgrade`. Raises
    SecretUnusable, DatabaseUnusable, OSError.
    """
    assert settings.data_directory is not None
    assert settings.secret_file is not None
    settings.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = open_database(settings.database_url, threads=1, caller=SYSTEM)
    try:
        if not migrations.is_empty(database):
            _check_secret_is_there(settings)
        elif make_secret_file(settings.secret_file, identifiers or SystemIdentifiers()):
            logger.info("%s is made: keep a copy of it apart from backups", settings.secret_file)
        box = SecretBox(read_secret(settings.secret_file), PURPOSE)
        _make_tables(database)
        with database.writing.begin() as session:
            authorities.ensure_authority(session, Issuing(clock or SystemClock(), box))
    finally:
        database.close()


def first_link(master: OfflineMaster, listens_at: str, *, again: bool) -> str | None:
    """Return a link by which somebody becomes the first administrator; None once there is one.

    Unless it is to be made `again`, None also when there has been a link. `listens_at` is the URL
    for settings that name no public one.
    """

    def make(session: Session) -> str | None:
        if links.has_administrator(session) or (not again and links.has_setup_link(session)):
            return None
        url = master.settings.public_url or listens_at
        return links.make_setup_link(session, master.clock, master.identifiers, url)

    return master.write(make)


def _make_tables(database: Database) -> None:
    if migrations.is_empty(database):
        migrations.upgrade(database)
        logger.info("the database has its tables")
    else:
        migrations.check(database, remedy=migrations.MASTER_REMEDY)


def _check_secret_is_there(settings: Settings) -> None:
    assert settings.secret_file is not None
    if not settings.secret_file.exists():
        raise SecretUnusable(
            f"the database is in use already, and there is no secret file {settings.secret_file}: "
            "copy it from another machine of this master, or from a backup; what is encrypted in "
            "the database cannot be read with a new one"
        )
