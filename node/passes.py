"""Passes: ask the master once, then bring every release and every partition to what it wants."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from slapos.node.build.garbage import collect_garbage
from slapos.node.build.release import BuildOptions, ReleaseBuilder
from slapos.node.doors import Doors
from slapos.node.instantiate.process import InstanceOptions, PartitionProcessor
from slapos.node.layout import release_digest
from slapos.node.outcome import ExitStatus, Outcome, Result, exit_status
from slapos.node.record import PartitionRecord, read_record, write_record
from slapos.node.report.report_pass import report_partitions
from slapos.node.supervise.configuration import write_main
from slapos.protocol.errors import InvalidConfiguration, SlapOSError
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: How often partitions are processed in one pass while they ask things of each other.
ROUNDS = 10
#: Seconds between two report passes of the loop, unless something is to be destroyed.
REPORT_INTERVAL = 60.0
#: The same after one that failed; twice as long after each other one.
FAILED_REPORT_INTERVAL = 5.0
#: Seconds to wait, one after the other, for the promises of what was just started.
LATE_PROMISES = (0.5, 1.0, 2.0, 4.0)

#: By what it is about: the (subject, result) of what was last said not to be as wanted.
Said = dict[str, set[tuple[str, Result]]]


def software_pass(
    doors: Doors,
    options: BuildOptions,
    *,
    only: Sequence[str] = (),
    garbage_collect: bool = False,
    information: NodeInformation | None = None,
    said: Said | None = None,
) -> ExitStatus:
    """Bring the releases (`only`: URLs or their MD5) to what the master wants.

    Raises SlapOSError when the master cannot be asked.
    """
    write_main(doors.settings.layout)
    known = information or doors.client.node_information(doors.settings.computer_id)
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
            outcomes.append(builder.bring(release, options))
            doors.reports.try_flush()
    if garbage_collect:
        collect_garbage(doors.settings.layout, known)
    outcomes += _tell_master(doors)
    _summarise("software releases", outcomes, said)
    return exit_status(outcomes)


def instance_pass(
    doors: Doors,
    options: InstanceOptions,
    *,
    only: Sequence[str] = (),
    information: NodeInformation | None = None,
    said: Said | None = None,
) -> ExitStatus:
    """Bring the partitions (`only` these) to what the master wants.

    While an instance asks for others or publishes something, those are processed in the same pass,
    so that a tree settles in one. With no answer from the master, what is on disk is started.
    """
    if not doors.settings.forbid_supervisord_automatic_launch:
        doors.supervisor.ensure_running()
    node = doors.settings.computer_id
    try:
        known = information or doors.client.node_information(node)
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
        due = [
            partition
            for partition in known.partitions
            if (not only or partition.reference in only)
            and attempted.get(partition.reference) != processor.order(partition)
        ]
        for partition in due:
            attempted[partition.reference] = processor.order(partition)
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
    if options.check_always:
        _check_late_promises(doors, options, known.partitions, outcomes)
    results = [*outcomes.values(), *_tell_master(doors)]
    _summarise("partitions", results, said)
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
        PartitionProcessor(doors, InstanceOptions()).check_only(partition)
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


def repeat_passes(doors: Doors, *, interval: float, should_stop: Callable[[], bool]) -> None:
    """Make software, instance and report passes until told to stop, with one question each time.

    `interval` is the seconds between the end of a pass and the next one. What is wrong is said
    once, and again when something about it changes.
    """
    loop = _Loop(doors)
    while not should_stop():
        try:
            loop.make_pass()
        except (SlapOSError, OSError) as error:
            logger.error("this pass failed, the next one comes: %s", error)
        if not should_stop():
            doors.clock.sleep(interval)


class _Loop:
    """What lasts from one pass to the next."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._said: Said = {}
        self._is_offline = False
        self._leaving: set[str] = set()
        self._next_report = 0.0
        self._failed_reports = 0

    def make_pass(self) -> None:
        """Make one software and one instance pass, and a report pass when it is time."""
        doors, settings = self._doors, self._doors.settings
        try:
            known = doors.client.node_information(settings.computer_id)
        except SlapOSError as error:
            with _unless_running(), process_lock(settings.lock("cp")):
                self._go_on_without_master(error)
            return
        self._is_offline = False
        # Each lock for as long as its work lasts: commands that are run by hand wait for it.
        with _unless_running(), process_lock(settings.lock("sr")):
            software_pass(doors, BuildOptions(), information=known, said=self._said)
        with _unless_running(), process_lock(settings.lock("cp")):
            options = InstanceOptions(check_always=False)
            instance_pass(doors, options, information=known, said=self._said)
        with _unless_running():
            self._report(known)

    def _report(self, known: NodeInformation) -> None:
        """Destroy at once what is newly to go; all else of a report pass has time."""
        taken = [partition for partition in known.partitions if not partition.is_free]
        leaving = {p.reference for p in taken if p.state is InstanceState.DESTROYED}
        now = self._doors.clock.monotonic()
        if leaving <= self._leaving and now < self._next_report:
            return
        with process_lock(self._doors.settings.lock("ur")):
            outcomes = report_partitions(self._doors, taken) + _tell_master(self._doors)
        _summarise("reports", outcomes, self._said)
        failed = any(outcome.result is not Result.DONE for outcome in outcomes)
        self._failed_reports = min(self._failed_reports + 1, 10) if failed else 0
        wait = (
            FAILED_REPORT_INTERVAL * 2.0 ** (self._failed_reports - 1) if failed else float("inf")
        )
        self._leaving, self._next_report = leaving, now + min(wait, REPORT_INTERVAL)

    def _go_on_without_master(self, error: SlapOSError) -> None:
        if not self._is_offline:
            self._doors.supervisor.ensure_running()
            _run_without_master(self._doors, error)
        self._is_offline = True
        self._doors.supervisor.start_ended()


@contextmanager
def _unless_running() -> Iterator[None]:
    """Leave the work to the command that does it now; the next pass comes."""
    try:
        yield
    except AlreadyRunning as error:
        logger.debug("this part of the pass is not made now: %s", error)


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
        path = doors.settings.layout.partition_record(process.group)
        record = read_record(PartitionRecord, path)
        write_record(path, replace(record, promised=None, next_check=0.0))


def _summarise(what: str, outcomes: Sequence[Outcome], said: Said | None = None) -> None:
    """Say what is not as wanted; with `said`, only when it is not what was said the last time."""
    bad = [outcome for outcome in outcomes if outcome.result is not Result.DONE]
    if said is not None:
        summary = {(outcome.subject, outcome.result) for outcome in bad}
        is_new = said.get(what, set()) != summary or any(outcome.changed for outcome in bad)
        if bad and not is_new:
            return
        if not bad and said.get(what):
            logger.info("%s: all %s are as wanted", what, len(outcomes))
        said[what] = summary
    if not bad:
        logger.debug("%s: all %s are as wanted", what, len(outcomes))
        return
    logger.error("%s of %s %s are not as wanted:", len(bad), len(outcomes), what)
    for outcome in bad:
        logger.error("  %s: %s", outcome.result, outcome.line())
