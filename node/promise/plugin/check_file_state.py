"""The file `filename` is as `state` says: `absent`, `empty` or `not-empty`."""

import os
from pathlib import Path
from typing import Any

from slapos.node.promise.generic import BaseResult
from slapos.node.promise.plugin.counted import CountedPromise

STATES = ("absent", "empty", "not-empty")


class RunPromise(CountedPromise):
    """Looks at a file; `url` is where a person can read it.

    `periodic-only` keeps it out of the test of a partition, `report-anomaly = false` out of the
    search for anomalies.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the options. Raises ValueError for an unknown state."""
        super().__init__(config)
        self._path = Path(self.getPartitionFolder(), self.text("filename"))
        self._state = self.text("state")
        if self._state not in STATES:
            raise ValueError(f"state is one of {', '.join(STATES)}, not {self._state!r}")
        # The second is how existing profiles spell it.
        if self.flag("periodic-only", False) or self.flag("perdiodic-only", False):
            self.setTestLess()
        if not self.flag("report-anomaly", True):
            self.setAnomalyLess()

    def is_interruptible(self, partition: Path) -> bool:
        """Whether the file is on the disk of the partition; others may not answer for hours."""
        return os.path.normpath(self._path).startswith(f"{partition}/")

    def sense(self) -> None:
        """Look."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = None
        except OSError as error:
            self.logger.error("%s cannot be looked at: %s", self._path, error.strerror)
            return
        found = "absent" if size is None else "not-empty" if size else "empty"
        if found == self._state:
            self.logger.info("%s is %s", self._path, found)
            return
        url = str(self.getConfig("url") or "").strip()
        hint = f"; it can be read at {url}" if url and found == "not-empty" else ""
        self.logger.error("%s is %s, and should be %s%s", self._path, found, self._state, hint)

    def test(self) -> BaseResult:
        """Count the last runs."""
        return self._test(result_count=self.result_count, failure_amount=self.failure_amount)
