"""Renewing certificates, in a thread of its own."""

import threading

from slapos.node.enrolment.renewal import Renewal


class Renewing:
    """Keeps certificates up to date, for as long as the agent runs."""

    def __init__(self, renewal: Renewal) -> None:
        self._renewal = renewal
        self._ended = threading.Event()

    def run(self) -> None:
        """Renew what is due until `end`."""
        while not self._ended.is_set():
            self._ended.wait(self._renewal.run_pending())

    def end(self) -> None:
        """Renew no more."""
        self._ended.set()
