"""What is on disk of a partition, gathered for a decision."""

import logging
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.node.build.folder import COMPLETED
from slapos.node.doors import Doors
from slapos.node.instantiate.decide import Facts
from slapos.protocol.messages import PartitionInformation

logger = logging.getLogger(__name__)

TIMESTAMP = ".timestamp"
#: Bytes that are read of it.
LONGEST_STAMP = 1000


@dataclass(frozen=True)
class ReleaseFacts:
    """What is on disk of a release, as `Facts` has it."""

    built: str
    periodicity: int


def gather_facts(
    wanted: PartitionInformation, doors: Doors, release: ReleaseFacts | None = None
) -> Facts:
    """Return what is on disk of a partition and its release; nothing there is no error.

    `release` is what is known of the release already.
    """
    stamp, age = _stamp(doors.settings.layout.partition(wanted.reference), doors.now())
    release = release or release_facts(wanted.software_url, doors)
    return Facts(
        release_built=release.built, periodicity=release.periodicity, stamp=stamp, stamp_age=age
    )


def release_facts(url: str | None, doors: Doors) -> ReleaseFacts:
    """Return what is on disk of a release, which need not be there."""
    built, periodicity = "", doors.settings.maximum_periodicity
    if url:
        release = doors.settings.layout.release(url)
        with suppress(OSError):
            built = str((release / COMPLETED).stat().st_mtime_ns)
        periodicity = _periodicity(release, periodicity)
    return ReleaseFacts(built, periodicity)


def _stamp(folder: Path, now: float) -> tuple[str | None, float]:
    """Return what `.timestamp` holds, and its age in seconds; its owner may have made it a link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(f"{folder}/{TIMESTAMP}", flags)
    except OSError:
        return None, 0.0
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None, 0.0
        content = os.read(descriptor, LONGEST_STAMP)
    finally:
        os.close(descriptor)
    return content.decode("utf-8", "replace").strip(), now - status.st_mtime


def _periodicity(release: Path, fallback: int) -> int:
    try:
        content = read_beneath(release, "periodicity", 100)
        return fallback if content is None else int(content)
    except (UnsafePath, OSError, ValueError):
        logger.warning("%s/periodicity holds no number of seconds, it is %s", release, fallback)
        return fallback
