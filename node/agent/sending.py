"""Sending what is reported, in a thread of its own: at once, and again while the master is away."""

import logging
import threading

from slapos.node.report.back_off import BackOff
from slapos.node.report.reports import Reports
from slapos.protocol.errors import SlapOSError
from slapos.system.identifier import Identifiers
from slapos.system.process_lock import AlreadyRunning

logger = logging.getLogger(__name__)

#: Seconds after which reports are sent that a command wrote without this thread being woken.
LOOK_INTERVAL = 60.0
#: Seconds to wait while a command sends.
BUSY_WAIT = 1.0


class Sending:
    """Empties the journal of reports."""

    def __init__(self, reports: Reports, identifiers: Identifiers) -> None:
        self._reports = reports
        self._back_off = BackOff(identifiers)
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._is_failing = False

    def run(self) -> None:
        """Send until `end`."""
        while not self._ended.is_set():
            self._woken.clear()
            wait = self.send()
            if self._is_failing:
                self._ended.wait(wait)  # a new report does not bring the master back
            else:
                self._woken.wait(wait)

    def wake(self) -> None:
        """There is something to send."""
        self._woken.set()

    def end(self) -> None:
        """Send no more: what is left waits in the journal."""
        self._ended.set()
        self._woken.set()

    def send(self) -> float:
        """Send what waits; return the seconds until that is due again by itself."""
        try:
            for refusal in self._reports.flush():
                logger.error("%s", refusal)
        except AlreadyRunning as error:
            logger.debug("%s", error)
            return BUSY_WAIT
        except (SlapOSError, OSError) as error:
            if not self._is_failing:
                logger.warning("reports are kept here and sent later: %s", error)
            self._is_failing = True
            return self._back_off.failed()
        if self._is_failing:
            logger.info("the reports that waited are sent")
        self._is_failing = False
        self._back_off.succeeded()
        return LOOK_INTERVAL
