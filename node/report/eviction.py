"""A partition with an instance in it that the master does not know any more, as after a restore.

It runs on until its place is given to another instance: then it is ended and removed as if it had
been destroyed, before anything of the other one is done. What its order said to keep for some days
is put aside, where neither its user nor the next instance can reach it.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slapos.node.doors import Doors
from slapos.node.format.format import RESOURCE
from slapos.node.layout import Layout
from slapos.node.record import PartitionRecord
from slapos.node.report.destruction import DATE, end_and_empty, kept_until, run_last_programs
from slapos.node.users import Account
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.files import remove_tree, write_if_changed

logger = logging.getLogger(__name__)

#: Seconds after which the master is told again of an instance that it does not know.
TOLD_AGAIN = 86400.0


@dataclass(frozen=True, kw_only=True)
class KeptData:
    """Data that was put aside: of which instance, from where, until when (seconds since 1970)."""

    folder: Path
    partition: str
    instance: str
    until: float


def is_of_another(wanted: PartitionInformation, record: PartitionRecord) -> bool:
    """Return whether a partition still has in it what is none of the instance that it is for.

    What is to be destroyed is so whatever it is.
    """
    if wanted.is_free or wanted.state is InstanceState.DESTROYED or not wanted.instance_guid:
        return False
    return bool(record.instance) and record.instance != wanted.instance_guid


def is_told(record: PartitionRecord, now: float) -> bool:
    """Return whether the master has been told lately that it does not know what is there."""
    return bool(record.left_since) and record.reported_at <= now < record.reported_at + TOLD_AGAIN


def evict(reference: str, record: PartitionRecord, account: Account, doors: Doors) -> None:
    """End what an instance left in a partition, and remove it or put it aside.

    May be cut short and done again. Raises NotYet, SlapOSError, OSError.
    """
    folder = doors.settings.layout.partition(reference)
    logger.warning(
        "%s: the master gives it to another instance, so that %s, which it does not know, is "
        "ended and removed",
        reference,
        record.instance,
    )
    doors.supervisor.stop_partition(reference)
    doors.reports.forget_partition(reference)
    run_last_programs(reference, folder, account, doors)
    until = kept_until(folder, doors.now())
    if until > doors.now():  # what is cut short goes on with the same day
        write_if_changed(folder / DATE, str(until))

    def put_aside() -> None:
        if until > doors.now():
            _put_aside(reference, record.instance, until, doors.settings.layout)

    end_and_empty(reference, folder, account, doors, put_aside)
    doors.reports.occupant(reference, "", "", doors.now())


def _put_aside(reference: str, instance: str, until: float, layout: Layout) -> None:
    layout.kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    layout.kept.chmod(0o700)
    plain = instance.replace("/", "-").replace("_", "-")
    aside = layout.kept / f"{reference}_{plain}_{until:.0f}"
    aside.mkdir(mode=0o700, exist_ok=True)
    # The day goes last: as long as it is there, all else is to be kept, too.
    for path in sorted(layout.partition(reference).iterdir(), key=lambda path: path.name == DATE):
        if path.name != RESOURCE:
            path.rename(aside / path.name)
    logger.warning("%s: the data of %s is kept in %s", reference, instance, aside)


def kept_data(layout: Layout) -> Iterator[KeptData]:
    """Return what was put aside; only the node's own user sees it."""
    with suppress(OSError):
        for folder in sorted(layout.kept.iterdir()):
            rest, _, until = folder.name.rpartition("_")
            partition, _, instance = rest.rpartition("_")
            with suppress(ValueError):
                yield KeptData(
                    folder=folder, partition=partition, instance=instance, until=float(until)
                )


def remove_expired(doors: Doors) -> None:
    """Remove what was put aside for long enough."""
    for kept in kept_data(doors.settings.layout):
        if kept.until <= doors.now():
            logger.info("%s: the time to keep it is over, it is removed", kept.folder)
            try:
                remove_tree(kept.folder)
            except (SlapOSError, OSError) as error:
                logger.warning("%s cannot be removed: %s", kept.folder, error)
