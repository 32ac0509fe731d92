"""Back up all that a master knows into one file, while it is at work.

The file has everything of one moment, whatever the database is, and the secret file's key; it can
be restored into SQLite and into PostgreSQL. It is there when it is whole, and only its owner reads
it: with it, one can act as the master. Without the key (--without-secrets) it is no use without the
secret file from elsewhere; what customers gave as parameters is in it all the same. With
--passphrase-file all of it is encrypted (scrypt, AES-256-GCM): keep the passphrase elsewhere, as
nobody restores the backup without.

examples:
  slapos master backup /var/backups/slapos-master.backup
  slapos master backup --without-secrets master.backup
  slapos master backup --passphrase-file /root/backup-passphrase master.backup

exit status: 0 done, 1 failed
"""

import argparse
import json
from functools import partial
from pathlib import Path

from slapos.command.master_options import add_master_arguments, master_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("file", metavar="FILE", help="where to; a file of that name is replaced")
    parser.add_argument(
        "--without-secrets", action="store_true", help="leave out the secret file's key"
    )
    parser.add_argument(
        "--passphrase-file", metavar="FILE", help="encrypt it with the passphrase in this file"
    )
    parser.add_argument("--json", action="store_true", help="say what was done as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Make the backup."""
    # Imported here, so that `--help` does not wait for the database library.
    from slapos.master.backup.backing_up import back_up  # noqa: PLC0415
    from slapos.master.backup.sealing import Sealing, read_passphrase  # noqa: PLC0415
    from slapos.master.database import open_database  # noqa: PLC0415
    from slapos.master.secret_file import read_secret  # noqa: PLC0415
    from slapos.system.clock import SystemClock  # noqa: PLC0415
    from slapos.system.identifier import SystemIdentifiers  # noqa: PLC0415

    settings = master_settings(arguments)
    path = Path(arguments.file).expanduser().absolute()
    assert settings.secret_file is not None
    secret = None if arguments.without_secrets else read_secret(settings.secret_file).decode()
    seal = None
    if arguments.passphrase_file is not None:
        passphrase = read_passphrase(Path(arguments.passphrase_file).expanduser())
        seal = partial(Sealing, passphrase=passphrase, identifiers=SystemIdentifiers())
    database = open_database(settings.database_url, threads=1)
    try:
        made = back_up(database, path, SystemClock(), secret, seal)
    finally:
        database.close()
    told = {
        "file": str(path),
        "schema": made.schema,
        "rows": made.rows,
        "bytes": path.stat().st_size,
        "secret": secret is not None,
        "encrypted": seal is not None,
    }
    if arguments.json:
        print(json.dumps(told, indent=2))
    else:
        print(f"{path}: {made.rows} rows, schema {made.schema}, {told['bytes']} bytes")
    return 0
