"""The report pass: usage of all partitions to the master, then the end of the destroyed ones."""

import logging
from collections.abc import Sequence
from contextlib import suppress

from slapos.node.doors import Doors
from slapos.node.instantiate.check_folder import check_folder
from slapos.node.outcome import Outcome, Result, described
from slapos.node.report.destruction import NotYet, destroy_partition
from slapos.node.report.eviction import remove_expired
from slapos.node.report.usage import CollectedUsage, NoRoom
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.process_lock import AlreadyRunning, process_lock
from slapos.system.runner import CommandFailed

logger = logging.getLogger(__name__)

#: Seconds to wait for whoever else works on a partition.
PATIENCE = 5.0


def report_partitions(doors: Doors, partitions: Sequence[PartitionInformation]) -> list[Outcome]:
    """Report usage and destroy what is to go; one failure does not stop the others."""
    doors.reports.try_flush()
    try:
        outcomes = collect_usage(doors, partitions)
    except NoRoom as error:
        return [Outcome(subject="usage", result=Result.FAILED, cause=described(error))]
    doors.reports.try_flush()
    for wanted in partitions:
        if wanted.state is InstanceState.DESTROYED and wanted.reference not in outcomes:
            try:
                outcomes[wanted.reference] = _destroy(wanted, doors)
            except NotYet as error:
                logger.info("%s: not destroyed yet, %s", wanted.reference, error)
            except AlreadyRunning as error:
                outcomes[wanted.reference] = _busy(wanted, error)
            doors.reports.try_flush()
    return list(outcomes.values())


def collect_usage(doors: Doors, partitions: Sequence[PartitionInformation]) -> dict[str, Outcome]:
    """Have partitions report, and hand that over to be sent; return what failed, by reference.

    Raises NoRoom.
    """
    usage = CollectedUsage(doors)
    usage.check_room()
    remove_expired(doors)
    outcomes = {}
    for wanted in partitions:
        try:
            _collect(wanted, usage, doors)
        except AlreadyRunning as error:
            outcomes[wanted.reference] = _busy(wanted, error)
        except (SlapOSError, OSError) as error:
            outcomes[wanted.reference] = _failed(wanted, error, doors)
    try:
        usage.hand_over()
    except (SlapOSError, OSError) as error:
        cause = f"usage is kept here and sent later: {described(error)}"
        outcomes[""] = Outcome(subject="usage", result=Result.FAILED, cause=cause)
    return outcomes


def retire_partition(wanted: PartitionInformation, doors: Doors) -> Outcome:
    """Take a partition's last usage, and destroy it. Raises NotYet, AlreadyRunning."""
    usage = CollectedUsage(doors)
    try:
        usage.check_room()
        _collect(wanted, usage, doors)
    except AlreadyRunning:
        raise
    except NoRoom as error:
        return Outcome(subject=wanted.reference, result=Result.FAILED, cause=described(error))
    except (SlapOSError, OSError) as error:
        return _failed(wanted, error, doors)
    with suppress(SlapOSError, OSError):  # it is kept outside of the partition, and sent later
        usage.hand_over()
    return _destroy(wanted, doors)


def _collect(wanted: PartitionInformation, usage: CollectedUsage, doors: Doors) -> None:
    layout = doors.settings.layout
    with process_lock(layout.partition_lock(wanted.reference), patience=PATIENCE):
        account = check_folder(layout.partition(wanted.reference))
        usage.collect(wanted.reference, account)


def _destroy(wanted: PartitionInformation, doors: Doors) -> Outcome:
    layout = doors.settings.layout
    try:
        with process_lock(layout.partition_lock(wanted.reference), patience=PATIENCE):
            account = check_folder(layout.partition(wanted.reference))
            destroy_partition(wanted, account, doors)
    except (NotYet, AlreadyRunning):
        raise
    except (SlapOSError, OSError) as error:
        return _failed(wanted, error, doors)
    return Outcome(subject=wanted.reference, changed=True)


def _busy(wanted: PartitionInformation, error: AlreadyRunning) -> Outcome:
    return Outcome(subject=wanted.reference, result=Result.WAITING, cause=str(error))


def _failed(wanted: PartitionInformation, error: SlapOSError | OSError, doors: Doors) -> Outcome:
    cause = described(error)
    if isinstance(error, CommandFailed) and error.output:
        cause = f"{cause}: {error.output.strip().splitlines()[-1]}"
    doors.reports.instance_error(wanted.reference, cause)
    return Outcome(
        subject=wanted.reference,
        result=Result.FAILED,
        cause=cause,
        remedy="it is tried again by the next 'slapos node report'",
    )
