"""Measuring, in two threads of its own: samples by the minute, folders one after the other."""

import logging
import threading

from slapos.node.agent.plan import Ended, Kind
from slapos.node.doors import Doors
from slapos.node.monitor.metrics import BUILDS, PASSES, REPORTS_WAITING, Metrics
from slapos.node.monitor.monitor import Monitor
from slapos.node.outcome import Result
from slapos.protocol.errors import SlapOSError
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: Seconds to wait while a command measures.
BUSY_WAIT = 5.0


class Measuring:
    """Measures what partitions and the machine use, for as long as the agent runs."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._monitor = Monitor(doors)
        self._ended = threading.Event()
        doors.metrics.watch(REPORTS_WAITING, self._reports_waiting)

    def run(self) -> None:
        """Sample until `end`."""
        while not self._ended.is_set():
            try:
                with process_lock(self._doors.settings.layout.monitor_lock):
                    while not self._ended.wait(self._monitor.run_pending()):
                        continue
            except AlreadyRunning as error:
                logger.debug("%s", error)
                self._ended.wait(BUSY_WAIT)
        self._monitor.close()

    def measure_folders(self) -> None:
        """Measure folders until `end`."""
        is_failing = False
        wait = 0.0
        while not self._ended.wait(wait):
            try:
                wait = self._monitor.folders.run_pending()
                is_failing = False
            except (SlapOSError, OSError) as error:
                if not is_failing:
                    logger.error("what partitions hold is not stored: %s", error)
                is_failing, wait = True, BUSY_WAIT

    def end(self) -> None:
        """Measure no more."""
        self._ended.set()

    def _reports_waiting(self) -> float | None:
        try:
            return self._doors.reports.waiting().count
        except SlapOSError:
            return None


def count_end(ended: Ended, metrics: Metrics) -> None:
    """Count a job that was done."""
    outcome = ended.outcome
    if outcome is None:
        return
    if ended.job.kind is Kind.INSTANCE:
        metrics.count(PASSES, str(outcome.result))
    elif ended.job.kind is Kind.BUILD and (outcome.changed or outcome.result is Result.FAILED):
        metrics.count(BUILDS, str(outcome.result))
