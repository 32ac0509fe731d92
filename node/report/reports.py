"""What the node says to its master: written into the journal first, sent from there."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from slapos.node.report.back_off import BackOff
from slapos.node.report.journal import Journal, JournalFailed, Kind, Waiting
from slapos.node.report.sender import Sender
from slapos.protocol.errors import SlapOSError
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: Characters of the longest message; of a longer one the beginning and the end are kept.
MESSAGE_LENGTH = 50_000
#: Seconds to wait for another process that sends.
PATIENCE = 5.0
#: Seconds that a build waits until the master knows of it.
BUILDING_PATIENCE = 2.0


class Reports:
    """The reports of a node.

    The methods that report never fail because of the master: they write into the journal, and
    return whether that went well; if not, it was warned of, and the report has to be made again.
    They may be called from any thread.
    """

    def __init__(
        self, journal: Journal, sender: Sender, clock: Clock, identifiers: Identifiers
    ) -> None:
        self._journal = journal
        self._sender = sender
        self._clock = clock
        self._wake: Callable[[], None] | None = None
        self._back_off = BackOff(identifiers)
        self._next_attempt = 0.0
        self._failure = ""
        self._refusals: list[str] = []

    def hand_over(self, wake: Callable[[], None]) -> None:
        """Leave sending to somebody who is woken by each report, and who calls `flush`."""
        self._wake = wake

    # What is reported.

    def building(self, url: str) -> bool:
        """A release is being built."""
        written = self._add(Kind.RELEASE, url, {"url": url, "state": "building", "message": ""})
        if written and self._wake is None:
            # Said now or never: the end of the build replaces it. A silent master delays no build.
            sender = threading.Thread(target=self.try_flush, daemon=True)
            sender.start()
            sender.join(BUILDING_PATIENCE)
        return written

    def available(self, url: str) -> bool:
        """A release is built."""
        return self._add(Kind.RELEASE, url, {"url": url, "state": "available", "message": ""})

    def build_error(self, url: str, message: str) -> bool:
        """The build of a release failed."""
        payload = {"url": url, "state": "error", "message": _shortened(message)}
        return self._add(Kind.RELEASE, url, payload)

    def state(
        self,
        partition: str,
        state: InstanceState,
        *,
        timestamp: str | None = None,
        since: float | None = None,
    ) -> bool:
        """A partition is started or stopped, as ordered with `timestamp`, `since` when."""
        return self._instance(partition, str(state), None, timestamp, since)

    def instance_error(
        self,
        partition: str,
        message: str,
        *,
        timestamp: str | None = None,
        since: float | None = None,
    ) -> bool:
        """A partition failed, or its promises do."""
        return self._instance(partition, None, _shortened(message), timestamp, since)

    def _instance(
        self,
        partition: str,
        state: str | None,
        error: str | None,
        timestamp: str | None,
        since: float | None,
    ) -> bool:
        began = self._clock.now() if since is None else datetime.fromtimestamp(since, UTC)
        payload = {
            "partition": partition,
            "state": state,
            "error": error,
            "timestamp": timestamp,
            "since": began.isoformat(),
        }
        return self._add(Kind.INSTANCE, partition, payload, but="since")

    def related_instances(self, partition: str, titles: Sequence[str]) -> bool:
        """A partition's last pass requested these instances."""
        payload = {"partition": partition, "titles": [_plain(title) for title in titles]}
        return self._add(Kind.RELATED_INSTANCES, partition, payload)

    def promises(
        self, partition: str, instance: str, results: Sequence[Mapping[str, object]]
    ) -> bool:
        """All promises of the instance in a partition, and how each does, are these."""
        told = [
            {n: _plain(v) if isinstance(v, str) else v for n, v in each.items()} for each in results
        ]
        payload = {"partition": partition, "instance": instance, "results": told}
        return self._add(Kind.PROMISES, partition, payload)

    def occupant(self, partition: str, instance: str, title: str, since: float) -> bool:
        """An instance is in a partition that the master calls free; none (any more) when empty."""
        began = datetime.fromtimestamp(since, UTC).isoformat()
        payload = {
            "partition": partition,
            "instance": _plain(instance),
            "title": _plain(title),
            "since": began,
        }
        return self._add(Kind.OCCUPANT, partition, payload, but="since")

    def usage(self, documents: Sequence[tuple[str, str]]) -> None:
        """Write consumption documents, each with the id that it will always have.

        Raises JournalFailed: then none is written, and they have to be kept.
        """
        self._journal.add_usage(documents)
        self._written()

    def forget_partition(self, partition: str) -> None:
        """Say nothing any more of the instance that was in a partition."""
        self._forget((Kind.INSTANCE, Kind.RELATED_INSTANCES, Kind.PROMISES), partition)

    def forget_release(self, url: str) -> None:
        """Say nothing any more of a release."""
        self._forget((Kind.RELEASE,), url)

    def waiting(self) -> Waiting:
        """Return how much the master does not know yet. Raises JournalFailed."""
        return self._journal.waiting()

    def check(self) -> None:
        """See that reports can be written. Raises JournalFailed."""
        self._journal.check()

    def _add(
        self, kind: Kind, subject: str, payload: Mapping[str, object], *, but: str = ""
    ) -> bool:
        try:
            self._journal.add(kind, subject, payload, but=but)
        except JournalFailed as error:
            logger.warning("%s: it is reported later: %s", subject, error)
            return False
        self._written()
        return True

    def _forget(self, kinds: Sequence[Kind], subject: str) -> None:
        try:
            self._journal.forget(kinds, subject)
        except JournalFailed as error:
            logger.warning("%s: an old report of it may still be sent: %s", subject, error)

    def _written(self) -> None:
        if self._wake is not None:
            self._wake()

    # How it gets to the master.

    def try_flush(self, *, at_once: bool = False) -> None:
        """Send what waits, unless somebody else does, or it failed just now and not `at_once`.

        What goes wrong is warned of, and kept for `take_trouble`.
        """
        now = self._clock.monotonic()
        if self._wake is not None or (now < self._next_attempt and not at_once):
            return
        try:
            self._refusals += self.flush()
        except AlreadyRunning as error:
            logger.debug("another process sends the reports: %s", error)
        except SlapOSError as error:
            self._next_attempt = self._clock.monotonic() + self._back_off.failed()
            self._failure = f"reports are kept here and sent later: {error}"
            logger.warning("%s", self._failure)
        else:
            self._failure = ""
            self._back_off.succeeded()

    def take_trouble(self) -> str:
        """Return what keeps `try_flush` from sending all, and what was refused since last asked."""
        trouble = "; ".join(filter(None, (self._failure, *self._refusals)))
        self._failure, self._refusals = "", []
        return trouble

    def flush(self) -> list[str]:
        """Send all that waits, in order; return what the master refused for good, and why.

        Raises MasterUnreachable, MasterFailed and the like when something has to be sent later;
        AlreadyRunning while another process or thread sends; JournalFailed.
        """
        if not self._journal.waiting().count:
            return []
        with process_lock(self._journal.sending, patience=PATIENCE):
            return self._sender.send_all()


def _shortened(message: str) -> str:
    text = _plain(message)
    if len(text) <= MESSAGE_LENGTH:
        return text
    half = MESSAGE_LENGTH // 2
    return f"{text[:half]}\n[…]\n{text[-half:]}"


def _plain(text: str) -> str:
    """Return what can be sent: messages repeat names of files, odd ones too."""
    return text.encode(errors="backslashreplace").decode()
