"""The work itself: what a thread does for a job, with doors of its own."""

import logging
from collections.abc import Sequence
from contextlib import suppress

from slapos.node.agent.lane import NEVER
from slapos.node.agent.plan import Ended, Job, Kind
from slapos.node.build.folder import COMPLETED
from slapos.node.build.release import BuildOptions, ReleaseBuilder
from slapos.node.doors import Doors
from slapos.node.instantiate.keep_promises import PromiseKeeper
from slapos.node.instantiate.process import InstanceOptions, PartitionProcessor
from slapos.node.outcome import Outcome, Result, described
from slapos.node.record import ReleaseRecord, read_record
from slapos.node.report.destruction import NotYet
from slapos.node.report.report_pass import collect_usage, retire_partition
from slapos.node.report.usage import NoRoom
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import NodeInformation, PartitionInformation, ReleaseAssignment
from slapos.protocol.states import InstallationState, InstanceState
from slapos.system.process_lock import AlreadyRunning

logger = logging.getLogger(__name__)

#: Seconds to wait for somebody who only remembers what came of promises; others are come back to.
PATIENCE = 0.5


def do(job: Job, doors: Doors) -> Ended:
    """Do a job, and return what came of it; a mistake of ours in one job stops no other."""
    try:
        match job.kind:
            case Kind.INSTANCE:
                assert job.partition is not None
                return _instance(job, job.partition, doors)
            case Kind.BUILD:
                assert job.release is not None
                return _build(job, job.release, doors)
            case Kind.PROMISE:
                assert job.partition is not None
                checked = PromiseKeeper(doors).check(job.partition, anew=job.anew)
                return Ended(job=job, outcome=checked.outcome, again_in=checked.again_in)
            case Kind.USAGE:
                assert job.information is not None
                taken = [p for p in job.information.partitions if not p.is_free]
                return Ended(job=job, outcome=_usage(doors, taken))
            case Kind.FIREWALL:
                assert job.information is not None
                return Ended(job=job, outcome=_firewall(doors, job.information))
    except Exception as error:
        logger.exception("%s of %s: a mistake in the node itself", job.kind, job.key)
        outcome = Outcome(subject=job.key, result=Result.FAILED, cause=described(error))
        return Ended(job=job, outcome=outcome)


def _instance(job: Job, wanted: PartitionInformation, doors: Doors) -> Ended:
    processor = PartitionProcessor(doors, InstanceOptions(now=job.ripe, patience=PATIENCE))
    try:
        brought = processor.bring(wanted)
        is_over = wanted.state is InstanceState.DESTROYED and not wanted.is_free
        if is_over and brought.outcome.result is Result.DONE:
            return _destruction(job, wanted, doors)
    except AlreadyRunning as error:
        logger.debug("%s: %s", job.key, error)
        return Ended(job=job, outcome=None)
    return Ended(job=job, outcome=brought.outcome, again_in=brought.again_in)


def _destruction(job: Job, wanted: PartitionInformation, doors: Doors) -> Ended:
    try:
        outcome = retire_partition(wanted, doors)
    except NotYet as error:
        logger.debug("%s: not destroyed yet, %s", job.key, error)
        return Ended(job=job, outcome=Outcome(subject=job.key), again_in=error.wait)
    return Ended(job=job, outcome=outcome, gone=outcome.result is Result.DONE)


def _build(job: Job, assignment: ReleaseAssignment, doors: Doors) -> Ended:
    layout = doors.settings.layout
    builder = ReleaseBuilder(doors)
    try:
        outcome = builder.bring(assignment, BuildOptions(now=job.ripe, patience=0.0))
    except AlreadyRunning as error:
        logger.debug("%s: %s", job.key, error)
        return Ended(job=job, outcome=None)
    record = read_record(ReleaseRecord, layout.release_record(job.key))
    again = record.waits(doors.now()) if record.failures else NEVER
    built = ""
    if assignment.state is not InstallationState.DESTROYED:
        with suppress(OSError):
            built = str((layout.release(job.key) / COMPLETED).stat().st_mtime_ns)
    return Ended(job=job, outcome=outcome, again_in=again, built=built)


def _usage(doors: Doors, partitions: Sequence[PartitionInformation]) -> Outcome:
    try:
        failed = list(collect_usage(doors, partitions).values())
    except NoRoom as error:
        failed = [Outcome(subject="usage", result=Result.FAILED, cause=described(error))]
    for outcome in failed:
        logger.warning("usage: %s", outcome.line())
    return failed[0] if failed else Outcome(subject="usage")


def _firewall(doors: Doors, information: NodeInformation) -> Outcome:
    try:
        doors.firewall.keep(information, doors.client)
    except (SlapOSError, OSError) as error:
        return Outcome(subject="firewall", result=Result.FAILED, cause=described(error))
    return Outcome(subject="firewall")
