"""Show what a service's processes print, and how its instances came about.

It reads, of each instance, `.slapgrid/log/build.log` in its release's folder (how that was built),
`.slapgrid/log/instance.log` in its partition (how the instance was made), and there the files
`.<partition>_<process>.log` (what its processes print). The partition must be on this machine: for
others, the command says where to go.

examples:
  slapos service logs blog
  slapos service logs blog --instance database --lines 100
  slapos service logs blog -f
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slapos.command.client_settings import (
    ClientSettings,
    add_configuration_argument,
    add_json_argument,
    client_settings,
    connect,
    connect_hateoas,
)
from slapos.command.service_info import EXIT_NOT_FOUND, read_tree
from slapos.protocol.errors import NotFound
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock, SystemClock
from slapos.system.settings import environment

#: Seconds between two looks at the files with -f.
PAUSE = 0.3
#: Bytes read from the end of a file for each line that is wanted.
BYTES_PER_LINE = 500


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instance is, and what it is of."""

    title: str
    release: str
    node: str | None
    partition: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("reference", help="the service's name, as in `slapos service list`")
    parser.add_argument("--instance", metavar="TITLE", help="only this instance of its tree")
    parser.add_argument("--lines", type=int, default=20, metavar="N", help="so many last lines")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    add_configuration_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the ends of the logs; 2 when there is no such service, 1 when none is here."""
    settings = client_settings(arguments, environment())
    try:
        places = find_places(connect(settings), settings, arguments.reference, arguments.instance)
    except NotFound as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_FOUND
    logs: list[tuple[str, Path]] = []
    for place in places:
        found = settings.logs(place.node, place.partition, place.release)
        logs += [(place.title, path) for path in found]
        if not found:
            print(_elsewhere(place, settings, arguments), file=sys.stderr)
    if arguments.json:
        shown = [
            {"instance": title, "file": str(path), "lines": last_lines(path, arguments.lines)}
            for title, path in logs
        ]
        print(json.dumps(shown, indent=2))
    else:
        _show(logs, arguments, SystemClock())
    return 0 if logs else 1


def find_places(
    client: SlapClient, settings: ClientSettings, title: str, instance: str | None
) -> list[Place]:
    """Return where the instances of a service are; raises NotFound."""
    tree = read_tree(client, title)
    if tree is not None:
        places = [
            Place(
                title=one.title,
                release=one.software_url,
                node=one.node,
                partition=one.partition,
            )
            for one in tree.instances
        ]
    else:
        found = connect_hateoas(client, settings)
        release = found.service(title).software_url
        node, partition = found.place(title) or (None, None)
        places = [Place(title=title, release=release, node=node, partition=partition)]
    if instance is not None:
        known = ", ".join(place.title for place in places)
        places = [place for place in places if place.title == instance]
        if not places:
            raise NotFound(f"{title!r} has no instance {instance!r}; it has: {known}")
    return places


def _elsewhere(place: Place, settings: ClientSettings, arguments: argparse.Namespace) -> str:
    if not place.partition:
        return f"{place.title} has no partition yet, so there is nothing to read"
    if place.node == settings.node and settings.instance_root is not None:
        return (
            f"{place.title} is in {settings.instance_root / place.partition}, where nothing is "
            "logged yet"
        )
    return (
        f"{place.title} is in the partition {place.partition} of the node {place.node}, which "
        f"{settings.path} does not describe. On that node run:\n"
        f"  slapos service logs {arguments.reference} --instance {place.title} "
        "--cfg /etc/opt/slapos/slapos.cfg"
    )


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a file, without reading a large one whole."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - max(count, 1) * BYTES_PER_LINE))
        text = stream.read().decode("utf-8", "replace")
    return text.splitlines()[-count:] if count > 0 else []


def _show(logs: list[tuple[str, Path]], arguments: argparse.Namespace, clock: Clock) -> None:
    """Print the ends of the logs, each under its name, and with -f what is added to them."""
    tails = [LogTail(path) for _, path in logs]
    shown = ""
    for title, path in logs:
        shown = f"==> {title}: {path} <=="
        lines = last_lines(path, arguments.lines)
        print(f"{shown}\n" + "".join(f"{line}\n" for line in lines), flush=True)
    while arguments.follow and logs:
        for (title, path), tail in zip(logs, tails, strict=True):
            for line in tail.new_lines():
                if shown != f"==> {title}: {path} <==":
                    shown = f"==> {title}: {path} <=="
                    print(f"\n{shown}")
                print(line, flush=True)
        clock.sleep(PAUSE)


class LogTail:
    """What is added to a log from now on, also when it is rotated or emptied meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size
        self._inode = path.stat().st_ino
        self._rest = b""

    def new_lines(self) -> Iterator[str]:
        """Yield the whole lines that came since the last call."""
        try:
            with self._path.open("rb") as stream:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._position:
                    self._position, self._inode = 0, status.st_ino
                stream.seek(self._position)
                added = stream.read()
        except FileNotFoundError:  # between two files of a rotation
            return
        self._position += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
