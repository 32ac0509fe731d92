"""Bring the master's database to the schema of this version.

First everything is backed up into the data directory (--no-backup leaves that out), then the schema
is changed in one transaction: it is as before or as it is to be. No master may be at work on the
database meanwhile, on any machine. A master never changes the schema of a database by itself, and
one that is older than the schema does not start.

examples:
  slapos master upgrade
  slapos master upgrade --no-backup

exit status: 0 it has this version's schema, 1 failed or refused
"""

import argparse
import logging

from slapos.command.master_options import add_master_arguments, master_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("--no-backup", action="store_true", help="do not back up first")


def run(arguments: argparse.Namespace) -> int:
    """Back up, and upgrade."""
    # Imported here, so that `--help` does not wait for the database library.
    from slapos.master.backup.upgrading import upgrade  # noqa: PLC0415

    logging.getLogger("alembic").setLevel(logging.WARNING)
    done = upgrade(master_settings(arguments), backs_up=not arguments.no_backup)
    if done.before == done.after:
        print(f"the schema is {done.after}, as it is to be")
        return 0
    if done.backup is not None:
        print(f"backup of what was: {done.backup}")
    print(f"the schema was {done.before or 'of nothing'}, and is {done.after}")
    return 0
