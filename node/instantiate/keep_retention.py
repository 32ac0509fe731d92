"""Note for how long the partition's data must outlive its destruction."""

import math

from slapos.node.doors import Doors
from slapos.node.instantiate.step import StepFailed, Work
from slapos.system.files import write_if_changed

DELAY = ".slapos-retention-lock-delay"


def keep_retention(work: Work, doors: Doors) -> None:
    """Write the delay in days when there is none yet: it stays what it was at first.

    Raises StepFailed when what was requested is no number of days.
    """
    path = work.folder / DELAY
    if path.is_file():
        return
    wanted = (work.wanted.filter or {}).get("retention_delay") or 0
    try:
        days = float(wanted)
    except (TypeError, ValueError):
        days = math.nan
    if not 0 <= days < math.inf:
        raise StepFailed(
            f"retention_delay is {wanted!r}, and it must be a number of days",
            remedy="request the instance with another filter",
        )
    write_if_changed(path, str(days))
