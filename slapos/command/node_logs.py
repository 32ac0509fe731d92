"""Show what happens on this node: the logs of its partitions, or of its releases' builds.

Of a partition these are `.slapgrid/log/instance.log` (how its instance was made) and the files
`.<partition>_<process>.log` (what its processes print); with --software, of each release
`.slapgrid/log/build.log`. No link in those folders is followed.

examples:
  slapos node logs
  slapos node logs -f slappart0 slappart3
  slapos node logs --software -n 100
"""

import argparse
import logging

from slapos.command.log_view import (
    Log,
    partition_logs,
    release_logs,
    show,
    show_and_follow,
    show_json,
)
from slapos.command.node_options import add_configuration, node_settings
from slapos.node.doctor.examine import partition_folders
from slapos.node.layout import Layout
from slapos.node.record import ReleaseRecord, read_record
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.clock import SystemClock

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("partitions", nargs="*", metavar="PARTITION", help="only of these")
    parser.add_argument("--software", action="store_true", help="the builds of the releases")
    parser.add_argument("-n", "--lines", type=int, default=20, help="so many last lines of each")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what comes, in new files too"
    )
    parser.add_argument("--json", action="store_true", help="as JSON; does not go with -f")


def run(arguments: argparse.Namespace) -> int:
    """Print the ends of the logs; 1 when there is none."""
    layout = node_settings(arguments).layout
    if arguments.json and arguments.follow:
        raise InvalidConfiguration("--json shows what there is: leave out -f")
    if arguments.software and arguments.partitions:
        raise InvalidConfiguration("--software shows releases: name no partitions with it")
    there = [folder.name for folder in partition_folders(layout.instance_root)]
    for reference in arguments.partitions:
        if reference not in there:
            raise InvalidConfiguration(
                f"there is no partition {reference!r} in {layout.instance_root}; there are: "
                f"{', '.join(there) or 'none'}"
            )

    def find() -> list[Log]:
        if arguments.software:
            return find_builds(layout)
        chosen = arguments.partitions or [f.name for f in partition_folders(layout.instance_root)]
        return [log for name in chosen for log in partition_logs(name, layout.partition(name))]

    logs = find()
    if arguments.json:
        show_json(logs, arguments.lines, "software" if arguments.software else "partition")
    elif arguments.follow:
        show_and_follow(find, arguments.lines, SystemClock())
    else:
        show(logs, arguments.lines)
    if not logs:
        logger.warning("nothing that can be read is logged yet")
    return 0 if logs else 1


def find_builds(layout: Layout) -> list[Log]:
    """Return the logs of the builds, by the URL of the release where it is known."""
    found = []
    for folder in partition_folders(layout.software_root):
        record = read_record(ReleaseRecord, layout.state / "software" / f"{folder.name}.json")
        found += release_logs(record.url or folder.name, folder)
    return found
