"""What is on disk of a partition, gathered for a decision."""

import logging
from contextlib import suppress
from pathlib import Path

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.node.build.folder import COMPLETED
from slapos.node.doors import Doors
from slapos.node.instantiate.decide import Facts
from slapos.protocol.messages import PartitionInformation

logger = logging.getLogger(__name__)

TIMESTAMP = ".timestamp"


def gather_facts(wanted: PartitionInformation, doors: Doors) -> Facts:
    """Return what is on disk of a partition and its release; nothing there is no error."""
    layout = doors.settings.layout
    folder = layout.partition(wanted.reference)
    stamp, age = None, 0.0
    with suppress(OSError, UnsafePath):
        content = read_beneath(folder, TIMESTAMP, 1000)
        if content is not None:
            stamp = content.decode("utf-8", "replace").strip()
            age = doors.now() - (folder / TIMESTAMP).lstat().st_mtime
    built, periodicity = "", doors.settings.maximum_periodicity
    if wanted.software_url:
        release = layout.release(wanted.software_url)
        with suppress(OSError):
            built = str((release / COMPLETED).stat().st_mtime_ns)
        periodicity = _periodicity(release, periodicity)
    return Facts(release_built=built, periodicity=periodicity, stamp=stamp, stamp_age=age)


def _periodicity(release: Path, fallback: int) -> int:
    try:
        content = read_beneath(release, "periodicity", 100)
        return fallback if content is None else int(content)
    except (UnsafePath, OSError, ValueError):
        logger.warning("%s/periodicity holds no number of seconds, it is %s", release, fallback)
        return fallback
