"""How it went with one partition, in words that an operator can do something with."""

import os

from slapos.node.doors import Doors
from slapos.node.outcome import Outcome, Result
from slapos.protocol.messages import PartitionInformation

LOG = "instance.log"


def conclude(
    wanted: PartitionInformation,
    doors: Doors,
    result: Result = Result.DONE,
    cause: str = "",
    *,
    remedy: str = "",
    log: str = "",
    changed: bool = False,
) -> Outcome:
    """Return the outcome for a partition; a failure names its log, if there is one."""
    folder = doors.settings.layout.partition(wanted.reference)
    instance_log = folder / ".slapgrid" / "log" / LOG
    # Not with Path.exists, which fails where we may not look.
    if result is Result.FAILED and not log and os.path.exists(instance_log):
        log = str(instance_log)
    words = (wanted.title, wanted.software_type, wanted.software_url)
    return Outcome(
        subject=wanted.reference,
        result=result,
        description=", ".join(word for word in words if word),
        cause=cause,
        log=log,
        remedy=remedy,
        changed=changed,
    )
