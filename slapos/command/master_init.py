"""Make what a master for many customers needs: settings file, data directory, secret, database.

It ends with a link, good once and for 24 hours, by which somebody becomes the first administrator;
as long as there is none, each time with another one. What is there already is left as it is.
`slapos master start` does it by itself on a machine that has nothing; do it first to look at the
settings before.

examples:
  slapos master init
  slapos master init --cfg master.cfg --data-directory /srv/master --host :: --port 8443
  slapos master init --database-uri postgresql://slapos@db.example.com/slapos

exit status: 0 done, 1 failed or refused
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from slapos.command.master_options import (
    SYSTEM_FILE,
    add_master_arguments,
    master_configuration,
    master_settings,
    opened_master,
)
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.files import write_if_changed

if TYPE_CHECKING:
    from slapos.master.settings import Settings

logger = logging.getLogger(__name__)

SYSTEM_DATA = Path("/var/lib/slapos-master")
#: Settings that have an option here, with what it means.
OPTIONS = {
    "data_directory": "where the master keeps its files",
    "database_uri": "an SQLite file, or postgresql://USER:PASSWORD@HOST/NAME",
    "host": "address to listen on (127.0.0.1)",
    "port": "port to listen on (8443); 0 for any free one",
    "public_url": "how others reach the master",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    for name, meaning in OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=meaning)


def run(arguments: argparse.Namespace) -> int:
    """Make it, and say what there is."""
    from slapos.master.initialise import first_link  # noqa: PLC0415 - not for `--help`
    from slapos.master.web.listening import own_url  # noqa: PLC0415

    settings = initialise(arguments)
    with opened_master(arguments) as master:
        link = first_link(master, own_url(settings), again=True)
    print(f"settings: {master_configuration(arguments)}")
    print(f"data: {settings.data_directory}")
    print("next: slapos master start")
    if link is not None:
        print(f"then, good once, for 24 hours, to become the first administrator:\n  {link}")
    return 0


def initialise(arguments: argparse.Namespace) -> "Settings":
    """Make what is missing, and return the settings."""
    from slapos.master.initialise import initialise as make  # noqa: PLC0415 - not for `--help`

    logging.getLogger("alembic").setLevel(logging.WARNING)
    path = master_configuration(arguments)
    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    if path.exists():
        _refuse_options(path, given)
    else:
        _write_settings(path, {name: text for name, text in given.items() if text is not None})
    settings = master_settings(arguments)
    make(settings)
    return settings


def _refuse_options(path: Path, given: dict[str, str | None]) -> None:
    set_here = [f"--{name.replace('_', '-')}" for name, text in given.items() if text is not None]
    if set_here:
        raise InvalidConfiguration(
            f"{path} is there already, and {', '.join(set_here)} would not count: edit it"
        )


def _write_settings(path: Path, values: dict[str, str]) -> None:
    from slapos.master.full_settings import (  # noqa: PLC0415 - not for `--help`
        DATA_DIRECTORY,
        DEFAULT_DATA,
        SECTION,
        explained,
        read_full_settings,
    )

    data = SYSTEM_DATA if path == SYSTEM_FILE else path.parent / DEFAULT_DATA
    values = {**values, DATA_DIRECTORY: str(Path(values.get(DATA_DIRECTORY, data)).absolute())}
    read_full_settings({SECTION: values}, path.parent)  # what cannot be is refused here
    path.parent.mkdir(parents=True, exist_ok=True)
    # It may hold the password of the database.
    write_if_changed(path, explained(values), mode=0o600)
    logger.info("%s is written", path)
