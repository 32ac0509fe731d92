"""Put a backup back: into an empty database, or with --force in place of all that is there.

No master may be at work on the database meanwhile. It happens in one transaction: the database is
as before, or as in the backup. The schema is then this version's, nodes are told anew what they
have to do, and everybody signs in again. What was revoked after the backup was made counts again:
revoke it anew. References that were given out after it are not given out again.

The secret file is made where it is missing; another one is replaced with --force only, and kept.

The passphrase of a backup that is encrypted is in --passphrase-file, or is asked for.

examples:
  slapos master restore /var/backups/slapos-master.backup
  slapos master restore --force --cfg master.cfg yesterday.backup
  slapos master restore --passphrase-file /root/backup-passphrase master.backup

exit status: 0 done, 1 failed or refused, and nothing is changed
"""

import argparse
import getpass
import logging
import sys
from pathlib import Path

from slapos.command.master_options import add_master_arguments, master_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("file", metavar="FILE", help="the backup")
    parser.add_argument(
        "--force", action="store_true", help="replace what is in the database, and the secret file"
    )
    parser.add_argument(
        "--passphrase-file", metavar="FILE", help="where the passphrase of the backup is"
    )


def run(arguments: argparse.Namespace) -> int:
    """Restore."""
    # Imported here, so that `--help` does not wait for the database library.
    from slapos.master.backup.whole import restore_all  # noqa: PLC0415

    logging.getLogger("alembic").setLevel(logging.WARNING)
    path = Path(arguments.file).expanduser().absolute()
    passphrase = _passphrase(arguments, path)
    settings = master_settings(arguments)
    done = restore_all(settings, path, replaces=arguments.force, passphrase=passphrase)
    print(f"restored as of {done.made_at}, from schema {done.schema}")
    print("next: slapos master start")
    return 0


def _passphrase(arguments: argparse.Namespace, path: Path) -> str | None:
    from slapos.master.backup.sealing import is_sealed, read_passphrase  # noqa: PLC0415

    if arguments.passphrase_file is not None:
        return read_passphrase(Path(arguments.passphrase_file).expanduser())
    if path.exists() and is_sealed(path) and sys.stdin.isatty():
        return getpass.getpass(f"passphrase of {path}: ").strip()
    return None
