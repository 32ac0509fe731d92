"""One partition in one pass: what its state wants, step by step."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.node.build.folder import COMPLETED
from slapos.node.buildout_program import end_leftovers
from slapos.node.doors import Doors
from slapos.node.instantiate.check_folder import check_folder
from slapos.node.instantiate.check_promises import check_promises, failure_message
from slapos.node.instantiate.check_sources import check_sources
from slapos.node.instantiate.check_space import check_space
from slapos.node.instantiate.decide import Action, Facts, decide, order_of
from slapos.node.instantiate.fetch_certificate import fetch_certificate
from slapos.node.instantiate.keep_retention import keep_retention
from slapos.node.instantiate.link_release import link_release
from slapos.node.instantiate.report_requests import report_requests
from slapos.node.instantiate.run_buildout import run_buildout
from slapos.node.instantiate.run_services import run_services, stop_services
from slapos.node.instantiate.set_limits import keep_limits, set_limits
from slapos.node.instantiate.step import (
    ReleaseNotBuilt,
    Step,
    StepFailed,
    WaitsForInstance,
    Work,
)
from slapos.node.instantiate.write_profile import write_profile
from slapos.node.outcome import Outcome, Result, described
from slapos.node.promise.check import Mode, PromiseResult
from slapos.node.record import PartitionRecord, forget, read_record, write_record
from slapos.node.users import Account
from slapos.node.work_log import WorkLog, is_shown, telling_line
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.files import write_if_changed

logger = logging.getLogger(__name__)

LOG = "instance.log"
TIMESTAMP = ".timestamp"

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
#: How a record of what was reported begins when that is an error.
ERROR = "error: "
#: Seconds until a master that still believes in an error is told again: it may not know it yet.
REMINDER = 60.0
#: Seconds between checks of promises that fail: so many, then more each time.
PROMISE_WAITS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0)


@dataclass(frozen=True, kw_only=True)
class InstanceOptions:
    """How instances are processed.

    `check_always` checks the promises of every started partition, else only those whose turn it is.
    """

    force: bool = False
    now: bool = False
    force_stop: bool = False
    buildout_debug: bool = False
    check_always: bool = True


class PartitionProcessor:
    """Brings partitions to what the master wants of them."""

    def __init__(self, doors: Doors, options: InstanceOptions) -> None:
        self._doors = doors
        self._options = options
        self._settings = doors.settings
        self._layout = doors.settings.layout

    def order(self, wanted: PartitionInformation) -> str:
        """Return what tells this order from the next one."""
        return order_of(wanted, self._facts(wanted))

    def process(self, wanted: PartitionInformation) -> Outcome:
        """Do what is to be done; raise nothing of ours."""
        path = self._layout.partition_record(wanted.reference)
        try:
            record = read_record(PartitionRecord, path)
            facts = self._facts(wanted)
            action = decide(
                wanted,
                record,
                facts,
                force=self._options.force or self._options.force_stop,
                now=float("inf") if self._options.now else self._doors.now(),
            )
            match action:
                case Action.FREE:
                    return self._leave_free(wanted, path)
                case Action.WAIT:
                    return self._wait(wanted, record)
                case Action.PROCESS:
                    return self._apply(wanted, record, order_of(wanted, facts))
                case Action.KEEP:
                    return self._keep(wanted, record)
        # UnicodeError: partitions may name files as they like, and must not stop the others.
        except (SlapOSError, OSError, UnicodeError) as error:
            logger.debug("%s", wanted.reference, exc_info=True)
            return self._outcome(wanted, Result.FAILED, described(error))

    def _facts(self, wanted: PartitionInformation) -> Facts:
        folder = self._layout.partition(wanted.reference)
        stamp, age = None, 0.0
        with suppress(OSError, UnsafePath):
            content = read_beneath(folder, TIMESTAMP, 1000)
            if content is not None:
                stamp = content.decode("utf-8", "replace").strip()
                age = self._doors.now() - (folder / TIMESTAMP).lstat().st_mtime
        built, periodicity = "", self._settings.maximum_periodicity
        if wanted.software_url:
            release = self._layout.release(wanted.software_url)
            with suppress(OSError):
                built = str((release / COMPLETED).stat().st_mtime_ns)
            periodicity = _periodicity(release, periodicity)
        return Facts(release_built=built, periodicity=periodicity, stamp=stamp, stamp_age=age)

    def _leave_free(self, wanted: PartitionInformation, path: Path) -> Outcome:
        (self._layout.partition(wanted.reference) / TIMESTAMP).unlink(missing_ok=True)
        forget(path)
        self._doors.isolation.free(wanted.reference)
        return self._outcome(wanted)

    def _wait(self, wanted: PartitionInformation, record: PartitionRecord) -> Outcome:
        if not record.reported.startswith(ERROR):  # which could not even be written down
            self._report_error(wanted, record, record.cause)
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
        record = replace(record, attempted=order, applied="", promised=None, promise_failures=0)
        record = replace(record, running=True)
        try:
            account = check_folder(folder)
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
            self._report_error(wanted, record, str(error))
            return self._outcome(wanted, Result.WAITING, str(error), changed=True)
        except (SlapOSError, OSError) as error:
            return self._failed(wanted, record, error)
        record = replace(record.succeeded(), applied=order)
        write_record(path, record)
        if not self._options.force_stop and wanted.timestamp is not None:
            write_if_changed(folder / TIMESTAMP, wanted.timestamp)
        if wanted.state is InstanceState.STARTED and not self._options.force_stop:
            return self._check(wanted, record, account, fresh=True)
        self._report_state(wanted, record, wanted.state)
        return self._outcome(wanted, changed=True)

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
        record = record.failed(self._doors.now(), cause)
        with suppress(OSError):  # a full disk, perhaps: it is then simply tried again
            write_record(self._layout.partition_record(wanted.reference), record)
        self._report_error(wanted, record, _for_the_master(error))
        remedy = getattr(error, "remedy", "")
        return self._outcome(wanted, Result.FAILED, cause, remedy=remedy, changed=True)

    # An order that is applied.

    def _keep(self, wanted: PartitionInformation, record: PartitionRecord) -> Outcome:
        """Check the promises, tell the master what changed."""
        if wanted.state is not InstanceState.STARTED:
            self._report_state(wanted, record, wanted.state)
            return self._outcome(wanted)
        keep_limits(wanted, self._doors)
        now = self._doors.now()
        if not self._options.check_always and record.next_check > now:
            if record.promised is False:
                return self._outcome(wanted, Result.PROMISE_FAILED, record.cause)
            return self._outcome(wanted)
        account = check_folder(self._layout.partition(wanted.reference))
        return self._check(wanted, record, account, fresh=False)

    def check_only(self, wanted: PartitionInformation) -> Outcome:
        """Check the promises of a started partition, and nothing else; raise nothing of ours."""
        try:
            account = check_folder(self._layout.partition(wanted.reference))
        except (SlapOSError, OSError) as error:
            return self._outcome(wanted, Result.FAILED, described(error))
        results = self._results(wanted, account, mode="test", force=True)
        message = failure_message(results)
        return self._promises_failed(wanted, results) if message else self._outcome(wanted)

    def _check(
        self,
        wanted: PartitionInformation,
        record: PartitionRecord,
        account: Account,
        *,
        fresh: bool,
    ) -> Outcome:
        """Check the promises: in test mode until they hold, then for anomalies."""
        settled = record.promised is True
        mode: Mode = "anomaly" if settled else "test"
        results = self._results(wanted, account, mode=mode, force=not settled)
        message = failure_message(results)
        failures = record.promise_failures + 1 if message else 0
        wait = PROMISE_WAITS[min(failures, len(PROMISE_WAITS)) - 1]
        record = replace(
            record,
            promised=not message,
            promise_failures=failures,
            next_check=self._doors.now() + wait,
            cause=message,
        )
        write_record(self._layout.partition_record(wanted.reference), record)
        if not message:
            self._report_state(wanted, record, InstanceState.STARTED)
            return self._outcome(wanted, changed=fresh)
        self._report_error(wanted, record, message)
        return replace(self._promises_failed(wanted, results), changed=fresh)

    def _results(
        self, wanted: PartitionInformation, account: Account, *, mode: Mode, force: bool
    ) -> list[PromiseResult]:
        return check_promises(
            wanted.reference,
            self._layout.partition(wanted.reference),
            self._layout.release(wanted.software_url) if wanted.software_url else None,
            account,
            self._doors,
            mode=mode,
            force=force,
        ).results

    def _promises_failed(
        self, wanted: PartitionInformation, results: list[PromiseResult]
    ) -> Outcome:
        folder = self._layout.partition(wanted.reference)
        failed = next(result for result in results if result.failed)
        log = folder / ".slapgrid" / "promise" / "log" / f"{failed.title}.log"
        return self._outcome(
            wanted,
            Result.PROMISE_FAILED,
            failure_message(results),
            remedy="see what its services printed in "
            f"{folder}/.{wanted.reference}_*.log, and 'slapos node status'",
            log=str(log) if log.exists() else "",
        )

    # What the master is told.

    def _report_state(
        self, wanted: PartitionInformation, record: PartitionRecord, state: InstanceState
    ) -> None:
        """Tell what it is; that it is destroyed is for `node report` to say, once it is."""
        if state is InstanceState.DESTROYED:
            state = InstanceState.STOPPED
        told_long_ago = abs(self._doors.now() - record.reported_at) > REMINDER
        if record.reported == str(state) and not (_is_error(wanted) and told_long_ago):
            return
        record = self._reporting(record, str(state))
        if self._doors.reports.state(
            wanted.reference, state, timestamp=wanted.timestamp, since=record.reported_since
        ):
            write_record(self._layout.partition_record(wanted.reference), record)

    def _report_error(
        self, wanted: PartitionInformation, record: PartitionRecord, message: str
    ) -> None:
        told = f"{ERROR}{message}"
        if record.reported == told:
            return
        record = self._reporting(record, told)
        if self._doors.reports.instance_error(
            wanted.reference, message, timestamp=wanted.timestamp, since=record.reported_since
        ):
            with suppress(OSError):
                write_record(self._layout.partition_record(wanted.reference), record)

    def _reporting(self, record: PartitionRecord, told: str) -> PartitionRecord:
        """Return what to remember once `told` is reported; another error is no new beginning."""
        goes_on = record.reported.partition(":")[0] == told.partition(":")[0]
        now = self._doors.now()
        since = (record.reported_since if goes_on else 0.0) or now
        return replace(record, reported=told, reported_at=now, reported_since=since)

    def _outcome(
        self,
        wanted: PartitionInformation,
        result: Result = Result.DONE,
        cause: str = "",
        *,
        remedy: str = "",
        log: str = "",
        changed: bool = False,
    ) -> Outcome:
        folder = self._layout.partition(wanted.reference)
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


def _for_the_master(error: SlapOSError | OSError) -> str:
    output = error.output if isinstance(error, StepFailed) else ""
    return "\n".join(filter(None, (described(error), output)))


def _is_error(wanted: PartitionInformation) -> bool:
    """Return whether the master, where it says so at all, believes that the partition failed."""
    return (wanted.access_status or "").startswith("#error")


def _periodicity(release: Path, fallback: int) -> int:
    try:
        content = read_beneath(release, "periodicity", 100)
        return fallback if content is None else int(content)
    except (UnsafePath, OSError, ValueError):
        logger.warning("%s/periodicity holds no number of seconds, it is %s", release, fallback)
        return fallback
