"""One partition in one pass: what its state wants, step by step."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slapos.node.buildout_program import end_leftovers
from slapos.node.doors import Doors
from slapos.node.instantiate.check_folder import check_folder
from slapos.node.instantiate.check_sources import check_sources
from slapos.node.instantiate.check_space import check_space
from slapos.node.instantiate.conclude import LOG, conclude
from slapos.node.instantiate.decide import Action, Facts, again_in, decide, order_of
from slapos.node.instantiate.facts import TIMESTAMP, ReleaseFacts, gather_facts, release_facts
from slapos.node.instantiate.fetch_certificate import fetch_certificate
from slapos.node.instantiate.keep_promises import PromiseKeeper
from slapos.node.instantiate.keep_retention import keep_retention
from slapos.node.instantiate.link_release import link_release
from slapos.node.instantiate.report_requests import report_requests
from slapos.node.instantiate.run_buildout import run_buildout
from slapos.node.instantiate.run_services import keep_services, run_services, stop_services
from slapos.node.instantiate.set_limits import keep_limits, set_limits
from slapos.node.instantiate.step import (
    ReleaseNotBuilt,
    Step,
    StepFailed,
    WaitsForInstance,
    Work,
)
from slapos.node.instantiate.tell_master import (
    is_error_told,
    is_state_told,
    tell_error,
    tell_state,
)
from slapos.node.instantiate.write_profile import write_profile
from slapos.node.isolate.limits import read_limits
from slapos.node.outcome import Outcome, Result, described
from slapos.node.promise.check import promises_version
from slapos.node.record import FIRST_WAIT, PartitionRecord, forget, read_record, write_record
from slapos.node.report.eviction import evict, is_of_another, is_told
from slapos.node.users import Account
from slapos.node.work_log import WorkLog, is_shown, telling_line
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.files import write_if_changed
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

INSTALL: tuple[Step, ...] = (
    check_space,
    link_release,
    set_limits,
    check_sources,
    fetch_certificate,
    write_profile,
    run_buildout,
    keep_retention,
)
#: What each state wants, in order. An instance is stopped even where its buildout fails.
STEPS: dict[InstanceState, tuple[Step, ...]] = {
    InstanceState.STARTED: (*INSTALL, run_services, report_requests),
    InstanceState.STOPPED: (stop_services, *INSTALL, report_requests),
    InstanceState.DESTROYED: (stop_services,),
}
#: Seconds that a pass waits for whoever else works on a partition.
PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class InstanceOptions:
    """How instances are processed; `patience` is for whoever else works on a partition, seconds."""

    force: bool = False
    now: bool = False
    force_stop: bool = False
    buildout_debug: bool = False
    patience: float = PATIENCE


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What came of bringing about an order, and after how many seconds it is due by itself."""

    outcome: Outcome
    again_in: float


class PartitionProcessor:
    """Brings partitions to what the master wants of them."""

    def __init__(self, doors: Doors, options: InstanceOptions) -> None:
        self._doors = doors
        self._options = options
        self._layout = doors.settings.layout
        #: What is on disk of releases, read once for all partitions that are made of them.
        self._releases: dict[str | None, ReleaseFacts] = {}
        self._limits: dict[str, Mapping[str, Any]] = {}

    def order(self, wanted: PartitionInformation) -> str:
        """Return what tells this order from the next one."""
        built = self._release(wanted.software_url).built
        return order_of(wanted, Facts(release_built=built))

    def is_as_wanted(self, wanted: PartitionInformation) -> bool:
        """Return whether there is nothing to do for a partition, not even to check its promises.

        This only reads, and takes no lock: nothing is as wanted while somebody works on it. What is
        on disk of a release is read once for all partitions.
        """
        if self._options.force or self._options.force_stop:
            return False
        try:
            return self._is_as_wanted(wanted)
        except (SlapOSError, OSError, UnicodeError):  # it is met again, and told, when it is done
            return False

    def _is_as_wanted(self, wanted: PartitionInformation) -> bool:
        path = self._layout.partition_record(wanted.reference)
        folder = self._layout.partition(wanted.reference)
        if wanted.is_free:
            if os.path.lexists(f"{folder}/{TIMESTAMP}"):
                return False
            if os.path.lexists(path):
                return is_told(read_record(PartitionRecord, path), self._doors.now())
            return self._doors.isolation.is_free(wanted.reference)
        record = read_record(PartitionRecord, path)
        facts = gather_facts(wanted, self._doors, self._release(wanted.software_url))
        now = self._doors.now()
        if (
            record.running
            or is_of_another(wanted, record)
            or decide(wanted, record, facts, force=False, now=now) is not Action.KEEP
            or not is_state_told(wanted, record, wanted.state, now)
        ):
            return False
        if wanted.state is not InstanceState.STARTED:
            return True
        if record.needs_check(now, promises_version(folder)):
            return False
        url = wanted.software_url or ""
        release = self._layout.release(url) if url else None
        if url not in self._limits:
            self._limits[url] = read_limits(release)
        return self._doors.isolation.is_limited(wanted, release, self._limits[url])

    def _release(self, url: str | None) -> ReleaseFacts:
        if url not in self._releases:
            self._releases[url] = release_facts(url, self._doors)
        return self._releases[url]

    def process(self, wanted: PartitionInformation) -> Outcome:
        """Bring the order about, then check its promises; raise nothing of ours."""
        try:
            outcome = self.bring(wanted).outcome
        except AlreadyRunning as error:
            return conclude(wanted, self._doors, Result.WAITING, str(error))
        runs = wanted.state is InstanceState.STARTED and not wanted.is_free
        if outcome.result is not Result.DONE or not runs or self._options.force_stop:
            return outcome
        checked = PromiseKeeper(self._doors).check(wanted)
        return replace(checked.outcome, changed=outcome.changed)

    def bring(self, wanted: PartitionInformation) -> Brought:
        """Do what is to be done, but for the promises.

        Raises AlreadyRunning while somebody else works on the partition, and nothing else of ours.
        """
        lock = self._layout.partition_lock(wanted.reference)
        try:
            with process_lock(lock, patience=self._options.patience):
                outcome = self._bring(wanted)
                record = read_record(
                    PartitionRecord, self._layout.partition_record(wanted.reference)
                )
                facts = gather_facts(wanted, self._doors)
                wait = again_in(wanted, record, facts, self._doors.now())
                return Brought(outcome=outcome, again_in=wait)
        except AlreadyRunning:
            raise
        # UnicodeError: partitions may name files as they like, and must not stop the others.
        except (SlapOSError, OSError, UnicodeError) as error:
            logger.debug("%s", wanted.reference, exc_info=True)
            outcome = conclude(wanted, self._doors, Result.FAILED, described(error))
            return Brought(outcome=outcome, again_in=FIRST_WAIT)

    def _bring(self, wanted: PartitionInformation) -> Outcome:
        path = self._layout.partition_record(wanted.reference)
        record = read_record(PartitionRecord, path)
        facts = gather_facts(wanted, self._doors)
        action = decide(
            wanted,
            record,
            facts,
            force=self._options.force
            or self._options.force_stop
            or (is_of_another(wanted, record) and not record.failures),
            now=float("inf") if self._options.now else self._doors.now(),
        )
        match action:
            case Action.FREE:
                return self._leave_free(wanted, record, path)
            case Action.WAIT:
                return self._wait(wanted, record)
            case Action.PROCESS:
                return self._apply(wanted, record, order_of(wanted, facts))
            case Action.KEEP:
                if wanted.state is InstanceState.STARTED:
                    keep_limits(wanted, self._doors)
                    healed = keep_services(wanted.reference, self._doors)
                    return self._outcome(wanted, changed=healed)
                tell_state(wanted, record, wanted.state, self._doors)
                return self._outcome(wanted)

    def _leave_free(
        self, wanted: PartitionInformation, record: PartitionRecord, path: Path
    ) -> Outcome:
        """Forget what was in it; what is in it still goes on until its place is wanted."""
        (self._layout.partition(wanted.reference) / TIMESTAMP).unlink(missing_ok=True)
        if record.instance:
            self._leave(wanted.reference, record, path)
            return self._outcome(wanted)
        forget(path)
        self._doors.isolation.free(wanted.reference)
        return self._outcome(wanted)

    def _leave(self, reference: str, record: PartitionRecord, path: Path) -> None:
        now = self._doors.now()
        if is_told(record, now):
            return
        instance, title, since = record.instance, record.title, record.left_since or now
        if not record.left_since:
            logger.warning(
                "%s: %s (%s) is in it, which the master does not know; it is left as it is until "
                "its place is given to another instance",
                reference,
                instance,
                title,
            )
        if self._doors.reports.occupant(reference, instance, title, since):
            told = PartitionRecord(
                instance=instance, title=title, left_since=since, reported_at=now
            )
            write_record(path, told)

    def _wait(self, wanted: PartitionInformation, record: PartitionRecord) -> Outcome:
        if not is_error_told(record):  # which could not even be written down
            tell_error(wanted, record, record.cause, self._doors)
        if record.is_waiting:
            return self._outcome(wanted, Result.WAITING, record.cause)
        return self._outcome(
            wanted,
            Result.FAILED,
            record.told(self._doors.now()),
            remedy="to try now: slapos node instance --now",
        )

    # An order that is not (fully) applied yet.

    def _apply(self, wanted: PartitionInformation, record: PartitionRecord, order: str) -> Outcome:
        """Run the steps of the wanted state, remember how it went, and tell the master."""
        path = self._layout.partition_record(wanted.reference)
        folder = self._layout.partition(wanted.reference)
        if record.running:
            end_leftovers(folder, self._doors.clock)
        if record.attempted != order:
            # What the master was told, it was told of the order before.
            record = replace(record.succeeded(), reported="")
        record = replace(record, attempted=order, applied="", promised=None)
        record = replace(record, running=True)
        try:
            account = check_folder(folder)
            if is_of_another(wanted, record):
                write_record(path, record)
                evict(wanted.reference, record, account, self._doors)
            record = self._inhabited(wanted, record)
            # First this: with it, a record without `applied` would mean that all is as wanted.
            (folder / TIMESTAMP).unlink(missing_ok=True)
            write_record(path, record)
            with WorkLog(folder, LOG, self._doors.clock, account.owner) as log:
                work = self._work(wanted, folder, account, log)
                self._run_steps(work)
        except ReleaseNotBuilt as error:
            write_record(path, replace(record, running=False))
            return self._outcome(wanted, Result.WAITING, str(error), remedy=error.remedy)
        except WaitsForInstance as error:
            record = record.came_too_early(self._doors.now(), str(error))
            write_record(path, record)
            tell_error(wanted, record, str(error), self._doors)
            return self._outcome(wanted, Result.WAITING, str(error), changed=True)
        except (SlapOSError, OSError) as error:
            return self._failed(wanted, record, error)
        record = replace(record.succeeded(), applied=order)
        write_record(path, record)
        if not self._options.force_stop and wanted.timestamp is not None:
            write_if_changed(folder / TIMESTAMP, wanted.timestamp)
        if wanted.state is not InstanceState.STARTED or self._options.force_stop:
            tell_state(wanted, record, wanted.state, self._doors)
        return self._outcome(wanted, changed=True)

    def _inhabited(self, wanted: PartitionInformation, record: PartitionRecord) -> PartitionRecord:
        """Return the record of a partition that what is wanted is in from now on."""
        if wanted.state is InstanceState.DESTROYED:
            return record
        if record.left_since:
            self._doors.reports.occupant(wanted.reference, "", "", record.left_since)
        guid = wanted.instance_guid or record.instance
        return replace(record, instance=guid, title=wanted.title or "", left_since=0.0)

    def _work(
        self, wanted: PartitionInformation, folder: Path, account: Account, log: WorkLog
    ) -> Work:
        return Work(
            wanted=wanted,
            folder=folder,
            release=self._layout.release(wanted.software_url) if wanted.software_url else None,
            account=account,
            log=log,
            buildout_debug=self._options.buildout_debug,
        )

    def _run_steps(self, work: Work) -> None:
        steps = STEPS[work.wanted.state]
        if self._options.force_stop and run_services in steps:
            steps = tuple(stop_services if step is run_services else step for step in steps)
        logger.debug("%s: bringing it to %s", work.reference, work.wanted.state)
        error_log = work.folder / f".slapgrid-{work.reference}-error.log"
        error_log.unlink(missing_ok=True)
        for step in steps:
            try:
                step(work, self._doors)
            except (SlapOSError, OSError) as error:
                if not isinstance(error, ReleaseNotBuilt | WaitsForInstance):
                    message = _for_the_master(error)
                    work.log.write(message, "ERROR")
                    write_if_changed(error_log, message)
                raise

    def _failed(
        self, wanted: PartitionInformation, record: PartitionRecord, error: SlapOSError | OSError
    ) -> Outcome:
        cause, output = described(error), getattr(error, "output", "")
        if output:
            if not is_shown(logging.DEBUG):  # as which it was told line by line
                logger.error("%s failed; its last lines:\n%s", wanted.reference, output)
            cause = f"{cause}: {telling_line(output)}"
        record = record.failed(self._doors.now(), cause, self._doors.identifiers.fraction())
        with suppress(OSError):  # a full disk, perhaps: it is then simply tried again
            write_record(self._layout.partition_record(wanted.reference), record)
        tell_error(wanted, record, _for_the_master(error), self._doors)
        remedy = getattr(error, "remedy", "")
        return self._outcome(wanted, Result.FAILED, cause, remedy=remedy, changed=True)

    def _outcome(
        self,
        wanted: PartitionInformation,
        result: Result = Result.DONE,
        cause: str = "",
        *,
        remedy: str = "",
        changed: bool = False,
    ) -> Outcome:
        return conclude(wanted, self._doors, result, cause, remedy=remedy, changed=changed)


def _for_the_master(error: SlapOSError | OSError) -> str:
    output = error.output if isinstance(error, StepFailed) else ""
    return "\n".join(filter(None, (described(error), output)))
