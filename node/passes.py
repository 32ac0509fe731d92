"""Passes: ask the master once, then bring every release and every partition to what it wants."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from slapos.node.build.garbage import collect_garbage
from slapos.node.build.release import BuildOptions, ReleaseBuilder
from slapos.node.doors import Doors
from slapos.node.instantiate.keep_promises import PromiseKeeper
from slapos.node.instantiate.process import InstanceOptions, PartitionProcessor
from slapos.node.layout import release_digest
from slapos.node.outcome import ExitStatus, Outcome, Result, exit_status
from slapos.node.record import PartitionRecord, read_record, write_record
from slapos.node.report.report_pass import report_partitions
from slapos.node.supervise.configuration import write_main
from slapos.protocol.errors import InvalidConfiguration, SlapOSError
from slapos.protocol.messages import NodeInformation, PartitionInformation, ReleaseAssignment
from slapos.protocol.states import InstanceState
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: How often partitions are processed in one pass while they ask things of each other.
ROUNDS = 10
#: Seconds to wait, one after the other, for the promises of what was just started.
LATE_PROMISES = (0.5, 1.0, 2.0, 4.0)


def software_pass(
    doors: Doors,
    options: BuildOptions,
    *,
    only: Sequence[str] = (),
    garbage_collect: bool = False,
) -> ExitStatus:
    """Bring the releases (`only`: URLs or their MD5) to what the master wants.

    Raises SlapOSError when the master cannot be asked.
    """
    write_main(doors.settings.layout)
    known = doors.client.node_information(doors.settings.computer_id)
    unknown = set(only) - {r.url for r in known.releases}
    unknown -= {release_digest(r.url) for r in known.releases}
    if unknown:
        raise InvalidConfiguration(
            f"the master does not want {', '.join(sorted(unknown))} on {known.reference}: see "
            "'slapos proxy show' for what it wants, and 'slapos supply' to change that"
        )
    builder = ReleaseBuilder(doors)
    outcomes = []
    for release in known.releases:
        if not only or release.url in only or release_digest(release.url) in only:
            outcomes.append(_brought(builder, release, options))
            doors.reports.try_flush()
    if garbage_collect:
        collect_garbage(doors.settings.layout, known)
    outcomes += _tell_master(doors)
    _summarise("software releases", outcomes)
    return exit_status(outcomes)


def _brought(builder: ReleaseBuilder, release: ReleaseAssignment, options: BuildOptions) -> Outcome:
    try:
        return builder.bring(release, options)
    except AlreadyRunning as error:
        return Outcome(subject=release.url, result=Result.WAITING, cause=str(error))


def instance_pass(
    doors: Doors,
    options: InstanceOptions,
    *,
    only: Sequence[str] = (),
) -> ExitStatus:
    """Bring the partitions (`only` these) to what the master wants.

    While an instance asks for others or publishes something, those are processed in the same pass,
    so that a tree settles in one. With no answer from the master, what is on disk is started.
    """
    if not doors.settings.forbid_supervisord_automatic_launch:
        doors.supervisor.ensure_running()
    node = doors.settings.computer_id
    try:
        known = doors.client.node_information(node)
    except SlapOSError as error:
        return _run_without_master(doors, error)
    _check_known(only, known)
    keep_firewall(doors, known)
    chosen = [p for p in known.partitions if not only or p.reference in only]
    _start_what_ended(doors, chosen)
    outcomes: dict[str, Outcome] = {}
    attempted: dict[str, str] = {}
    processor = PartitionProcessor(doors, options)
    for _ in range(ROUNDS):
        due = []
        for partition in known.partitions:
            reference = partition.reference
            order = processor.order(partition)
            if (not only or reference in only) and attempted.get(reference) != order:
                due.append(partition)
                attempted[reference] = order
        for partition in due:
            if processor.is_as_wanted(partition):
                outcomes[partition.reference] = Outcome(subject=partition.reference)
                continue
            outcomes[partition.reference] = processor.process(partition)
            doors.reports.try_flush()
        if not any(outcomes[partition.reference].changed for partition in due):
            break
        # Only what changed is processed again, and that by its order, whatever was forced at first.
        processor = PartitionProcessor(doors, replace(options, force=False))
        try:
            known = doors.client.node_information(node)
        except SlapOSError as error:
            logger.warning("the master cannot be asked for what changed: %s", error)
            break
        keep_firewall(doors, known)
    _check_late_promises(doors, options, known.partitions, outcomes)
    results = [*outcomes.values(), *_tell_master(doors)]
    _summarise("partitions", results)
    return exit_status(results)


def _tell_master(doors: Doors) -> list[Outcome]:
    """Send the reports that still wait; return what the master did not take."""
    doors.reports.try_flush(at_once=True)
    trouble = doors.reports.take_trouble()
    if not trouble:
        return []
    return [Outcome(subject="the master", result=Result.FAILED, cause=trouble)]


def keep_firewall(doors: Doors, known: NodeInformation) -> None:
    """Have the rules for who may reach the partitions be as the master wants them.

    Where they cannot be set, they stay as they were, and nothing else is hindered by that.
    """
    try:
        doors.firewall.keep(known, doors.client)
    except (SlapOSError, OSError) as error:
        logger.error("%s", error)


def _check_late_promises(
    doors: Doors,
    options: InstanceOptions,
    partitions: Sequence[PartitionInformation],
    outcomes: dict[str, Outcome],
) -> None:
    """Give services that were just started a moment to keep their promises."""
    fresh = {name for name, outcome in outcomes.items() if outcome.changed}
    processor = PartitionProcessor(doors, replace(options, force=False))
    for wait in LATE_PROMISES:
        late = [
            partition
            for partition in partitions
            if partition.reference in fresh
            and outcomes[partition.reference].result is Result.PROMISE_FAILED
        ]
        if not late:
            return
        logger.info("%s of the started instances do not keep their promises yet", len(late))
        doors.clock.sleep(wait)
        for partition in late:
            outcomes[partition.reference] = processor.process(partition)
            doors.reports.try_flush()


def _check_known(only: Sequence[str], known: NodeInformation) -> None:
    unknown = set(only) - {partition.reference for partition in known.partitions}
    if unknown:
        raise InvalidConfiguration(
            f"{known.reference} has no partition {', '.join(sorted(unknown))}"
        )


def promise_pass(doors: Doors, *, only: Sequence[str] = ()) -> ExitStatus:
    """Check the promises of started partitions, all of them; the master is not told."""
    known = doors.client.node_information(doors.settings.computer_id)
    _check_known(only, known)
    outcomes = [
        PromiseKeeper(doors).check_only(partition)
        for partition in known.partitions
        if partition.state is InstanceState.STARTED and (not only or partition.reference in only)
    ]
    _summarise("partitions", outcomes)
    return exit_status(outcomes)


def report_pass(doors: Doors) -> ExitStatus:
    """Report usage, and destroy what the master wants destroyed."""
    if not doors.settings.forbid_supervisord_automatic_launch:
        doors.supervisor.ensure_running()
    known = doors.client.node_information(doors.settings.computer_id)
    outcomes = report_partitions(doors, [p for p in known.partitions if not p.is_free])
    outcomes += _tell_master(doors)
    _summarise("partitions", outcomes)
    return exit_status(outcomes)


def _run_without_master(doors: Doors, error: SlapOSError) -> ExitStatus:
    logger.error("%s", error)
    started = doors.supervisor.start_ended()
    names = ", ".join(f"{process.group}:{process.name}" for process in started)
    logger.warning(
        "the services on this node go on without the master; started: %s", names or "none had ended"
    )
    return ExitStatus.OFFLINE


def _start_what_ended(doors: Doors, partitions: Sequence[PartitionInformation]) -> None:
    started = {p.reference for p in partitions if p.state is InstanceState.STARTED}
    for process in doors.supervisor.start_ended(started):
        logger.warning("%s:%s was not running, it is started", process.group, process.name)
        # Whether its promises hold again is known only once they are checked.
        layout = doors.settings.layout
        with suppress(AlreadyRunning), process_lock(layout.partition_lock(process.group)):
            record = read_record(PartitionRecord, layout.partition_record(process.group))
            write_record(layout.partition_record(process.group), replace(record, promised=None))


def _summarise(what: str, outcomes: Sequence[Outcome]) -> None:
    """Say what is not as wanted."""
    bad = [outcome for outcome in outcomes if outcome.result is not Result.DONE]
    if not bad:
        logger.debug("%s: all %s are as wanted", what, len(outcomes))
        return
    logger.error("%s of %s %s are not as wanted:", len(bad), len(outcomes), what)
    for outcome in bad:
        logger.error("  %s: %s", outcome.result, outcome.line())
