"""Which partitions are in use, whose they are, and which network interfaces are theirs."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from slapos.node.layout import Layout

_INTERFACES = Path("/sys/class/net")


def partitions_in_use(layout: Layout) -> dict[str, int]:
    """Return the user (uid) of the folder of each partition that something was done for."""
    names = set()
    for folder, suffix in (
        (layout.state / "instance", ".json"),
        (layout.supervisor_groups, ".conf"),
    ):
        with suppress(FileNotFoundError):
            names |= {n.removesuffix(suffix) for n in os.listdir(folder) if n.endswith(suffix)}
    owners = {}
    for name in sorted(names):
        with suppress(OSError):
            status = os.lstat(layout.partition(name))
            if stat.S_ISDIR(status.st_mode):  # the groups of the node itself have none
                owners[name] = status.st_uid
    return owners


class Interfaces:
    """The taps and tuns of this machine, by their owner: what else there is nobody owns."""

    def __init__(self, folder: Path = _INTERFACES) -> None:
        self._folder = folder
        self._owners: dict[str, int] = {}

    def of_partitions(self, names: Iterable[str], partitions: Mapping[str, int]) -> dict[str, str]:
        """Return which interface is which partition's; a user of several partitions is none's."""
        found = set(names)
        if found != self._owners.keys():
            self._owners = {name: self._owner(name) for name in found}
        users = Counter(partitions.values())
        alone = {user: name for name, user in partitions.items() if users[user] == 1}
        return {name: alone[user] for name, user in self._owners.items() if user in alone}

    def _owner(self, name: str) -> int:
        try:
            return int((self._folder / name / "owner").read_text())
        except (OSError, ValueError):
            return -1
