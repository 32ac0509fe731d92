"""The promises of one partition: checked, remembered, told."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from slapos.node.doors import Doors
from slapos.node.instantiate.check_folder import check_folder
from slapos.node.instantiate.check_promises import check_promises, failure_message
from slapos.node.instantiate.conclude import conclude
from slapos.node.instantiate.decide import is_applied, order_of
from slapos.node.instantiate.facts import gather_facts
from slapos.node.instantiate.tell_master import is_state_told, tell_error, tell_state
from slapos.node.instantiate.tell_promises import tell_promises
from slapos.node.monitor.metrics import PROMISES, PROMISES_FAILING
from slapos.node.outcome import Outcome, Result, described
from slapos.node.promise.check import Mode, PromiseResult, PromiseRun, promises_version
from slapos.node.record import PartitionRecord, read_record, write_record
from slapos.node.users import Account
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: Seconds that remembering a result waits for whoever works on the partition.
PATIENCE = 1.0
#: Seconds after which promises are looked at although none has its turn.
LONGEST_REST = 86400.0


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of checking promises; those that hold have their turn again in `again_in` seconds.

    Infinity is for never, as long as nothing happens.
    """

    outcome: Outcome
    again_in: float = 0.0


class PromiseKeeper:
    """Checks the promises of partitions. It takes as long as they take, and locks nothing."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._layout = doors.settings.layout

    def check(self, wanted: PartitionInformation, *, anew: bool = False) -> Checked:
        """Check a started partition, remember and tell what came of it; raise nothing of ours.

        In test mode until they hold, or `anew`; then for anomalies, and nothing is started before
        the first of them has its turn. One whose order is not applied has no promises yet; when its
        order changes meanwhile, what was found means nothing.
        """
        try:
            return self._check(wanted, anew)
        # UnicodeError: partitions may name files as they like, and must not stop the others.
        except (SlapOSError, OSError, UnicodeError) as error:
            logger.debug("%s", wanted.reference, exc_info=True)
            return Checked(outcome=conclude(wanted, self._doors, Result.FAILED, described(error)))

    def _check(self, wanted: PartitionInformation, anew: bool) -> Checked:
        order = order_of(wanted, gather_facts(wanted, self._doors))
        record = self._record(wanted)
        if not is_applied(record, order):
            return Checked(outcome=conclude(wanted, self._doors))
        folder = self._layout.partition(wanted.reference)
        now = self._doors.now()
        settled = record.promised is True and not anew
        if settled and not record.needs_check(now, promises_version(folder)):
            if not is_state_told(wanted, record, InstanceState.STARTED, now):
                self._keep(wanted, order, lambda known: self._tell(wanted, known, ""))
            self._doors.metrics.measure(PROMISES_FAILING, 0, wanted.reference)
            outcome = conclude(wanted, self._doors)
            return Checked(outcome=outcome, again_in=record.promises_due - now)
        mode: Mode = "anomaly" if settled else "test"
        run = self._run(wanted, check_folder(folder), mode=mode, force=not settled)
        message = failure_message(run.results)
        self._keep(wanted, order, lambda known: self._remember(wanted, known, run, message))
        if message:
            return Checked(outcome=self._broken(wanted, run.results))
        again_in = max(run.next_due - self._doors.now(), 0.0)
        return Checked(outcome=conclude(wanted, self._doors), again_in=again_in)

    def _record(self, wanted: PartitionInformation) -> PartitionRecord:
        return read_record(PartitionRecord, self._layout.partition_record(wanted.reference))

    def _keep(
        self, wanted: PartitionInformation, order: str, keep: Callable[[PartitionRecord], None]
    ) -> None:
        """Call `keep` with the record of a partition, if it still is about the same order."""
        try:
            with process_lock(self._layout.partition_lock(wanted.reference), patience=PATIENCE):
                record = self._record(wanted)
                if is_applied(record, order):
                    keep(record)
        except AlreadyRunning:  # it is processed now, and checked again after that
            logger.debug("%s: what was found of its promises is not kept", wanted.reference)

    def _remember(
        self, wanted: PartitionInformation, record: PartitionRecord, run: PromiseRun, message: str
    ) -> None:
        record = replace(
            record,
            promised=not message,
            cause=message,
            checked=run.checked,
            promises_due=min(run.next_due, run.checked + LONGEST_REST),
            promises=run.version,
        )
        write_record(self._layout.partition_record(wanted.reference), record)
        self._tell(wanted, record, message)
        folder = self._layout.partition(wanted.reference)
        tell_promises(wanted, folder, run.results, self._doors)

    def _tell(self, wanted: PartitionInformation, record: PartitionRecord, message: str) -> None:
        if message:
            tell_error(wanted, record, message, self._doors)
        else:
            tell_state(wanted, record, InstanceState.STARTED, self._doors)

    def check_only(self, wanted: PartitionInformation) -> Outcome:
        """Check the promises of a started partition, and nothing else; raise nothing of ours."""
        try:
            account = check_folder(self._layout.partition(wanted.reference))
        except (SlapOSError, OSError) as error:
            return conclude(wanted, self._doors, Result.FAILED, described(error))
        results = self._run(wanted, account, mode="test", force=True).results
        if failure_message(results):
            self._doubt(wanted)
            return self._broken(wanted, results)
        return conclude(wanted, self._doors)

    def _doubt(self, wanted: PartitionInformation) -> None:
        """Have the promises checked again, and told of, by whoever is next to look at them."""
        order = order_of(wanted, gather_facts(wanted, self._doors))
        path = self._layout.partition_record(wanted.reference)
        self._keep(
            wanted, order, lambda record: write_record(path, replace(record, promises_due=0.0))
        )

    def _run(
        self, wanted: PartitionInformation, account: Account, *, mode: Mode, force: bool
    ) -> PromiseRun:
        run = check_promises(
            wanted.reference,
            self._layout.partition(wanted.reference),
            self._layout.release(wanted.software_url) if wanted.software_url else None,
            account,
            self._doors,
            mode=mode,
            force=force,
        )
        failed = sum(result.failed for result in run.results)
        metrics = self._doors.metrics
        metrics.measure(PROMISES_FAILING, failed, wanted.reference)
        for word, number in (("kept", len(run.results) - failed), ("failed", failed)):
            metrics.count(PROMISES, word, by=number)
        return run

    def _broken(self, wanted: PartitionInformation, results: list[PromiseResult]) -> Outcome:
        folder = self._layout.partition(wanted.reference)
        failed = next(result for result in results if result.failed)
        log = folder / ".slapgrid" / "promise" / "log" / f"{failed.title}.log"
        return conclude(
            wanted,
            self._doors,
            Result.PROMISE_FAILED,
            failure_message(results),
            remedy="see what its services printed in "
            f"{folder}/.{wanted.reference}_*.log, and 'slapos node status'",
            log=str(log) if log.exists() else "",
        )
