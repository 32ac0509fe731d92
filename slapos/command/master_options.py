"""What the commands `slapos master …` have in common: the settings file, and the database.

A command that shows or changes something works on the database itself, as the master's own, and
need not know where web processes run:

    with opened_master(arguments) as master:
        master.write(lambda session: create_person(session, master.clock, …))
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slapos.command.columns import aligned, plain
from slapos.protocol.errors import InvalidConfiguration, InvalidRequest
from slapos.system.settings import environment, read_configuration

if TYPE_CHECKING:
    from slapos.master.offline import OfflineMaster
    from slapos.master.settings import Settings

SYSTEM_FILE = Path("/etc/opt/slapos/slapos-master.cfg")
USER_FILE = Path("~/.slapos/slapos-master.cfg")
VARIABLE = "SLAPOS_MASTER_CONFIGURATION"


def add_master_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --cfg."""
    parser.add_argument(
        "--cfg",
        metavar="FILE",
        help=f"the master's settings file (default: ${VARIABLE}, else {SYSTEM_FILE} for root, "
        f"{USER_FILE} for others)",
    )


def master_configuration(arguments: argparse.Namespace) -> Path:
    """Return where the settings file is, or belongs."""
    named = arguments.cfg or environment().get(VARIABLE)
    default = SYSTEM_FILE if os.geteuid() == 0 else USER_FILE
    return Path(os.path.abspath(Path(named or default).expanduser()))


def master_settings(arguments: argparse.Namespace, **options: str | None) -> "Settings":
    """Return the settings; `options` come before the file. Raises InvalidConfiguration."""
    from slapos.master.full_settings import SECTION, read_full_settings  # noqa: PLC0415

    path = master_configuration(arguments)
    if not path.exists():
        raise InvalidConfiguration(
            f"there is no settings file {path}: `slapos master init` makes one; "
            "or name it with --cfg"
        )
    sections = read_configuration(path)
    if SECTION not in sections:
        raise InvalidConfiguration(f"{path} has no section [{SECTION}]: is it a node's?")
    return read_full_settings(sections, path.parent, options)


@contextmanager
def opened_master(arguments: argparse.Namespace) -> Iterator["OfflineMaster"]:
    """Give the master's database, which has to have this version's schema, and close it."""
    from slapos.master.offline import open_offline  # noqa: PLC0415 - not for `--help`

    master = open_offline(master_settings(arguments))
    try:
        yield master
    finally:
        master.database.close()


def act(
    arguments: argparse.Namespace,
    actions: "Mapping[str, Callable[[OfflineMaster, argparse.Namespace], Any]]",
    what: str,
) -> Any:
    """Do the action that was asked for and return what comes of it.

    The argument called `what` says what it is about; only `list` has none.
    """
    if (getattr(arguments, what) is None) != (arguments.action == "list"):
        needed = (
            f"takes no {what.upper()}" if arguments.action == "list" else f"needs a {what.upper()}"
        )
        raise InvalidRequest(f"{arguments.action} {needed}")
    with opened_master(arguments) as master:
        return actions[arguments.action](master, arguments)


def show_rows(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], text: Callable[[object], str]
) -> None:
    """Print a table: `columns` are the keys of what is shown, with their heads."""
    lines = [[plain(text(row[key])) for key in columns] for row in rows]
    print("\n".join(aligned([[*columns.values()], *lines])))
