"""What a step is.

A step brings about one thing in a partition. It may be run any number of times, after having been
cut short at any point too, and changes nothing when all is there. It raises an error of ours when
the thing cannot be had; then the steps after it are not run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slapos.node.doors import Doors
from slapos.node.users import Account
from slapos.node.work_log import WorkLog
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation


class StepFailed(SlapOSError):
    """A step failed: `remedy` says what to do, `output` is the end of what a program printed."""

    code = "step_failed"

    def __init__(self, message: str, *, remedy: str = "", output: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
        self.output = output


class ReleaseNotBuilt(StepFailed):
    """The software release of an instance is not there yet."""

    code = "release_not_built"


class WaitsForInstance(StepFailed):
    """An instance came too early: another one that it needs is not ready yet."""

    code = "waits_for_instance"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What steps work on: a partition as the master wants it, and where and as whom it is done."""

    wanted: PartitionInformation
    folder: Path
    release: Path | None
    account: Account
    log: WorkLog
    buildout_debug: bool = False

    @property
    def reference(self) -> str:
        """The partition's name."""
        return self.wanted.reference

    def software(self) -> Path:
        """Return the folder of the release. Raises StepFailed when the master names none."""
        if self.release is None:
            raise StepFailed(
                "the master names no software release for it", remedy="request the instance again"
            )
        return self.release


class Step(Protocol):
    """One thing to bring about."""

    def __call__(self, work: Work, doors: Doors) -> None:
        """Bring it about. Raises SlapOSError, OSError."""
        ...
