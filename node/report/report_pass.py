"""The report pass: usage of all partitions to the master, then the end of the destroyed ones."""

import logging

from slapos.node.doors import Doors
from slapos.node.instantiate.check_folder import check_folder
from slapos.node.outcome import Outcome, Result, described
from slapos.node.report.destruction import NotYet, destroy_partition
from slapos.node.report.usage import CollectedUsage
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.runner import CommandFailed

logger = logging.getLogger(__name__)


def report_partitions(doors: Doors, partitions: list[PartitionInformation]) -> list[Outcome]:
    """Report usage and destroy what is to go; one failure does not stop the others."""
    doors.reports.try_flush()
    usage = CollectedUsage(doors)
    try:
        usage.check_room()
    except SlapOSError as error:
        return [Outcome(subject="usage", result=Result.FAILED, cause=described(error))]
    outcomes = {}
    for wanted in partitions:
        try:
            account = check_folder(doors.settings.layout.partition(wanted.reference))
            usage.collect(wanted.reference, account)
        except (SlapOSError, OSError) as error:
            outcomes[wanted.reference] = _failed(wanted, error, doors)
    try:
        usage.hand_over()
    except (SlapOSError, OSError) as error:
        cause = f"usage is kept here and sent later: {described(error)}"
        outcomes[""] = Outcome(subject="usage", result=Result.FAILED, cause=cause)
    doors.reports.try_flush()
    for wanted in partitions:
        if wanted.state is InstanceState.DESTROYED and wanted.reference not in outcomes:
            outcomes[wanted.reference] = _destroy(wanted, doors)
            doors.reports.try_flush()
    return list(outcomes.values())


def _destroy(wanted: PartitionInformation, doors: Doors) -> Outcome:
    try:
        account = check_folder(doors.settings.layout.partition(wanted.reference))
        destroy_partition(wanted, account, doors)
    except NotYet as error:
        logger.info("%s: not destroyed yet, %s", wanted.reference, error)
    except (SlapOSError, OSError) as error:
        return _failed(wanted, error, doors)
    return Outcome(subject=wanted.reference, changed=True)


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
