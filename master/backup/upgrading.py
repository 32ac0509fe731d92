"""Bringing a database to this version's schema, with a backup of what was."""

from dataclasses import dataclass
from pathlib import Path

from slapos.master import migrations
from slapos.master.backup.backing_up import back_up
from slapos.master.database import open_database
from slapos.master.identity.caller import SYSTEM
from slapos.master.settings import Settings
from slapos.system.clock import Clock, SystemClock


@dataclass(frozen=True)
class Upgraded:
    """The schema before and after, and the file with what was before, if there was anything."""

    before: str | None
    after: str
    backup: Path | None = None


def upgrade(settings: Settings, clock: Clock | None = None, *, backs_up: bool = True) -> Upgraded:
    """Back up and upgrade the database of some settings; it is not in use meanwhile.

    Raises InUse, DatabaseUnusable, OSError.
    """
    assert settings.data_directory is not None
    database = open_database(settings.database_url, threads=1, caller=SYSTEM)
    try:
        before = migrations.found_version(database)
        if before == migrations.HEAD:
            return Upgraded(before, before)
        backup = None
        if before is not None:
            migrations.refuse_others(database)  # before a backup that may take long
            if backs_up:
                folder = settings.data_directory / "backups"
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                clock = clock or SystemClock()
                backup = folder / f"schema-{before}-{clock.now():%Y%m%dT%H%M%SZ}.backup"
                back_up(database, backup, clock, secret=None)
        migrations.upgrade(database, is_alone=True)
        return Upgraded(before, migrations.HEAD, backup)
    finally:
        database.close()
