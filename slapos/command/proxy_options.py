"""What the proxy commands have in common: the configuration file and the database."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from slapos.command.machine_configuration import DEFAULT_TEXT, machine_configuration
from slapos.system.settings import DEFAULT_NODE_CONFIGURATION, environment, read_configuration

if TYPE_CHECKING:
    from slapos.master.settings import Settings

#: Options that come before the keys of the configuration file.
OPTIONS = ("database_uri", "host", "port", "local_software_release_root")


def add_proxy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --cfg and --database-uri."""
    parser.add_argument(
        "--cfg",
        metavar="FILE",
        help=f"the settings file (default: {DEFAULT_TEXT})",
    )
    parser.add_argument(
        "-u",
        "--database-uri",
        metavar="URI",
        help="path of an SQLite file, or postgresql://USER:PASSWORD@HOST/NAME",
    )


def proxy_settings(arguments: argparse.Namespace) -> "Settings":
    """Return the master's settings: the sections of the file, and what the options say instead."""
    from slapos.master.settings import read_settings  # noqa: PLC0415 - not for `--help`

    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    named = arguments.cfg or environment().get("SLAPOS_CONFIGURATION")
    if not named and given["database_uri"] and not Path(DEFAULT_NODE_CONFIGURATION).exists():
        return read_settings({}, given)  # the options say all that is needed
    path = machine_configuration(arguments.cfg, environment())
    return read_settings(read_configuration(path), given)
