"""Which partitions are in use, whose they are, and which network interfaces are theirs."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slapos.node.layout import Layout

_INTERFACES = Path("/sys/class/net")


@dataclass(frozen=True, kw_only=True)
class Inhabited:
    """The partitions in use, each with the user (uid) of its folder.

    `alone` are the users with one partition: whatever such a user does is of that partition.
    """

    owners: Mapping[str, int]
    alone: Mapping[int, str]


def find_inhabited(layout: Layout, own_user: int) -> Inhabited:
    """Return the partitions that something was done for; not all that `own_user` does is theirs."""
    names = set()
    for folder, suffix in (
        (layout.state / "instance", ".json"),
        (layout.supervisor_groups, ".conf"),
    ):
        with suppress(FileNotFoundError):
            names |= {n.removesuffix(suffix) for n in os.listdir(folder) if n.endswith(suffix)}
    users = {}
    for name in os.listdir(layout.instance_root):
        with suppress(FileNotFoundError):
            status = os.lstat(layout.instance_root / name)
            if stat.S_ISDIR(status.st_mode):
                users[name] = status.st_uid
    # Also those that are not in use: with the same user, they are not told apart by it.
    folders = Counter(users.values())
    # The groups of the node itself have no folder.
    owners = {name: users[name] for name in sorted(names & users.keys())}
    alone = {
        user: name
        for name, user in owners.items()
        if folders[user] == 1 and user not in (0, own_user)
    }
    return Inhabited(owners=owners, alone=alone)


class Interfaces:
    """The taps and tuns of this machine, by their owner: what else there is nobody owns."""

    def __init__(self, folder: Path = _INTERFACES) -> None:
        self._folder = folder
        self._owners: dict[str, int] = {}

    def of_partitions(self, names: Iterable[str], alone: Mapping[int, str]) -> dict[str, str]:
        """Return which of the interfaces is of which partition; `alone` as in Inhabited."""
        found = set(names)
        if found != self._owners.keys():
            self._owners = {name: self._owner(name) for name in found}
        return {name: alone[user] for name, user in self._owners.items() if user in alone}

    def _owner(self, name: str) -> int:
        try:
            return int((self._folder / name / "owner").read_text())
        except (OSError, ValueError):
            return -1
