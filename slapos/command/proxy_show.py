"""Show what the local master knows, straight from its database; nothing is changed.

Without one of the section options, every section is shown. The master need not be running.

examples:
  slapos proxy show --cfg slapos.cfg
  slapos proxy show -u /var/lib/slapos/proxy.db --partitions --params
  slapos proxy show --json
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from slapos.command.proxy_options import add_proxy_arguments, proxy_settings

#: Option → what it shows.
SECTIONS = {
    "computers": "the nodes",
    "software": "the releases on each node, and the names of their folders",
    "partitions": "the partitions that hold an instance",
    "slaves": "the shared instances",
    "params": "what the instances publish",
    "network": "the addresses of the partitions that hold an instance",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_proxy_arguments(parser)
    for name, meaning in SECTIONS.items():
        parser.add_argument(f"--{name}", action="store_true", help=f"show {meaning}")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the chosen sections."""
    # Imported here, so that `--help` does not wait for the database library.
    from slapos.master import migrations, overview  # noqa: PLC0415
    from slapos.master.database import open_database  # noqa: PLC0415

    chosen = [name for name in SECTIONS if getattr(arguments, name)] or list(SECTIONS)
    database = open_database(proxy_settings(arguments).database_url)
    migrations.check(database)
    with database.reading() as session:
        found = {name: overview.SECTIONS[name](session) for name in chosen}
    database.close()
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n\n".join("\n".join(table(name, rows)) for name, rows in found.items()))
    return 0


def table(name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Give the lines of a section: its name, then its columns side by side."""
    if not rows:
        yield f"{name}: none"
        return
    yield f"{name}:"
    texts = [["-" if value is None else str(value) for value in row.values()] for row in rows]
    # A value of several lines, such as a key, would break the columns.
    texts = [[value.replace("\n", "\\n") for value in row] for row in texts]
    texts.insert(0, list(rows[0]))
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = (value.ljust(width) for value, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
