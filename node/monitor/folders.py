"""How much disk partitions use: their folders, measured one after the other, seldom and gently."""

import logging
import os
import re
from pathlib import Path

from slapos.node.doors import Doors
from slapos.node.monitor.collector import Collector
from slapos.node.monitor.history import History
from slapos.node.monitor.inhabited import find_inhabited
from slapos.node.users import Account, owner_of
from slapos.protocol.errors import SlapOSError

logger = logging.getLogger(__name__)

#: Seconds that the measuring of one folder may take.
LONGEST = 120.0
#: After one that took a second, so many seconds nothing is measured.
REST = 4.0
#: Seconds until it is looked again whether there is a new partition.
LOOK = 60.0


class Folders:
    """Measures each partition's folder once in an interval, as its user and at low priority."""

    def __init__(self, doors: Doors, history: History, collector: Collector) -> None:
        self._doors = doors
        self._history = history
        self._collector = collector
        self._interval = doors.settings.disk_usage_interval
        #: When each was measured, or could not be.
        self._tried: dict[str, float] | None = None

    def run_pending(self) -> float:
        """Measure one folder, if one is due; return the seconds to wait then.

        Raises StoreFailed.
        """
        began = self._doors.clock.monotonic()
        if self.measure_next():
            return REST * (self._doors.clock.monotonic() - began)
        return min(LOOK, self._interval or LOOK)

    def measure_next(self) -> bool:
        """Measure the folder that has waited longest, and return whether one was due.

        Raises StoreFailed.
        """
        if not self._interval:
            return False
        if self._tried is None:
            self._tried = {name: at for name, (at, _) in self._history.sizes().items()}
        now = self._doors.now()
        self._tried = {
            # One that was tried in the future was so before the clock was set back.
            name: at if (at := self._tried.get(name, 0.0)) <= now else 0.0
            for name in find_inhabited(self._doors.settings.layout, 0).owners
        }
        oldest = min(self._tried, key=self._tried.__getitem__, default=None)
        if oldest is None or self._tried[oldest] + self._interval > now:
            return False
        self._tried[oldest] = now
        self._measure(oldest, now)
        return True

    def _measure(self, reference: str, now: float) -> None:
        folder = self._doors.settings.layout.partition(reference)
        try:
            account = owner_of(folder)
            size = self._size(folder, account)
        except (SlapOSError, ValueError, OSError) as error:
            logger.warning("how much is in %s is not known: %s", folder, error)
            return
        self._history.store_size(reference, now, size)
        self._collector.store_folders(self._doors.clock.now(), [(account.name, size)])

    def _size(self, folder: Path, account: Account) -> int:
        """Return the bytes on disk of a folder, and of what its DATA links to of its own.

        Raises CommandFailed, ValueError.
        """
        output = self._doors.runner.run(
            # Stays on the file system and follows no link. As the partition's user, it is harmless.
            ["nice", "-n", "19", "du", "-sxck", "--", str(folder), *self._data(folder)],
            cwd=Path("/"),
            environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            timeout=LONGEST,
            user=account.user,
            check=False,  # what cannot be read is left out
        ).output
        total = re.search(r"^(\d+)\ttotal$", output, re.MULTILINE)
        if total is None:
            raise ValueError(f"du says {output.strip()!r}")
        return int(total[1]) * 1024

    def _data(self, folder: Path) -> list[str]:
        """Return the folders on other disks that were given to a partition."""
        home = self._doors.settings.instance_storage_home
        if not home:
            return []
        try:
            found = [Path(os.path.realpath(entry)) for entry in (folder / "DATA").iterdir()]
        except OSError:
            return []
        return [str(path) for path in found if path.is_relative_to(os.path.realpath(home))]
