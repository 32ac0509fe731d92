"""Sending what waits in the journal: many reports at once, or by SLAP calls one by one.

A report is removed once the master has it. What is cut short is sent again: a master that takes
reports knows their ids and counts each once.
"""

import logging
from collections.abc import Sequence

from slapos.node.report.journal import Journal, JournalFailed, Kind, Report
from slapos.protocol.errors import (
    Conflict,
    InvalidRequest,
    MasterFailed,
    MasterUnreachable,
    NotFound,
    SlapOSError,
)
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock
from slapos.system.files import write_if_changed

logger = logging.getLogger(__name__)

#: Reports in one request, and bytes of their payloads: a master takes a megabyte.
BATCH = 100
BATCH_SIZE = 900_000
#: Seconds until a master that takes no reports is asked again whether it does.
ASK_AGAIN = 3600.0
#: After so many reports in a row that the master fails with, the others have to wait, too.
FAILURES = 3


class Sender:
    """Sends the reports of one node. Not to be used by two threads at a time."""

    def __init__(self, node: str, journal: Journal, client: SlapClient, clock: Clock) -> None:
        self._node = node
        self._journal = journal
        self._client = client
        self._clock = clock
        self._asks_again = 0.0
        self._kept: SlapOSError | None = None
        self._failures = 0
        self._refusals: list[str] = []
        self._is_known = False

    def send_all(self) -> list[str]:
        """Send each report that waits, once; return what the master refused for good.

        A report that the master fails with is kept, and the others are sent. Raises the error
        when something was kept; MasterUnreachable and JournalFailed at once.
        """
        self._kept, self._failures, self._refusals, self._is_known = None, 0, [], False
        sequence = 0
        while self._failures < FAILURES:
            rows = self._journal.following(sequence, count=BATCH, size=BATCH_SIZE)
            if not rows:
                break
            sequence = rows[-1].sequence
            self._send(rows)
        if self._kept is not None:
            raise self._kept
        return self._refusals

    def _send(self, rows: Sequence[Report]) -> None:
        try:
            if self._send_together(rows):
                return
            if len(rows) == 1:
                self._call(rows[0])
                self._remove(rows)
                return
        except (MasterUnreachable, JournalFailed):
            raise
        except (InvalidRequest, Conflict, NotFound) as error:
            if len(rows) == 1:
                self._check_master()
                self._refuse(rows[0], str(error))
                return
        except SlapOSError as error:
            if len(rows) == 1:
                self._keep(error)
                return
        # The master knows no batches, or one of these reports is what it failed with.
        for row in rows:
            if self._failures < FAILURES:
                self._send([row])

    def _send_together(self, rows: Sequence[Report]) -> bool:
        """Send them in one request; return whether they and the master are made for that."""
        now = self._clock.monotonic()
        if now < self._asks_again or rows[0].size > BATCH_SIZE:
            return False
        try:
            answer = self._client.send_reports(self._node, [row.to_json() for row in rows])
        except NotFound:
            self._asks_again = now + ASK_AGAIN
            return False
        self._remove([row for row in rows if row.id in answer.taken])
        rest = [row for row in rows if row.id not in answer.taken]
        for row in rest:
            if row.id in answer.refused:
                self._refuse(row, answer.refused[row.id])
        forgotten = sum(row.id not in answer.refused for row in rest)
        if forgotten:
            self._keep(MasterFailed(f"the master did not say what became of {forgotten} reports"))
        return True

    def _call(self, row: Report) -> None:
        """Say it by a SLAP call."""
        said = row.payload
        match row.kind:
            case Kind.INSTANCE if said["error"] is not None:
                self._client.report_instance_error(
                    self._node, row.subject, said["error"], timestamp=said["timestamp"]
                )
            case Kind.INSTANCE:
                self._client.report_state(
                    self._node,
                    row.subject,
                    InstanceState(said["state"]),
                    timestamp=said["timestamp"],
                )
            case Kind.RELEASE if said["state"] == "building":
                self._client.report_building(self._node, row.subject)
            case Kind.RELEASE if said["state"] == "available":
                self._client.report_available(self._node, row.subject)
            case Kind.RELEASE:
                self._client.report_build_error(self._node, row.subject, said["message"])
            case Kind.RELATED_INSTANCES:
                self._client.report_related_instances(self._node, row.subject, said["titles"])
            case Kind.PROMISES | Kind.OCCUPANT:
                pass  # no SLAP call tells them: what fails is in the instance's error
            case Kind.USAGE:
                self._client.report_usage(self._node, said["document"])

    def _remove(self, rows: Sequence[Report]) -> None:
        if rows:
            self._failures = 0
            self._journal.remove([row.id for row in rows])

    def _keep(self, error: SlapOSError) -> None:
        self._kept = error
        self._failures += 1

    def _check_master(self) -> None:
        """See that whoever refuses is a master that knows this node, and not what stands before it.

        Raises MasterUnreachable or MasterFailed otherwise.
        """
        if self._is_known:
            return
        try:
            self._client.node_information(self._node)
        except SlapOSError as error:
            self._asks_again = 0.0
            if isinstance(error, NotFound):
                raise MasterFailed(f"the master does not know this node: {error}") from error
            raise
        self._is_known = True

    def _refuse(self, row: Report, why: str) -> None:
        if row.kind in (Kind.PROMISES, Kind.OCCUPANT):
            # A master that has no use for them, or has another instance there by now.
            logger.debug("the master takes no %s of %s: %s", row.kind, row.subject, why)
            self._remove([row])
            return
        what = f"what was reported of {row.subject} ({row.kind})"
        if row.kind is Kind.USAGE:
            what = f"usage, which is now in {self._put_aside(row)},"
        said = f"the master refuses {what} for good: {why}"
        logger.warning("%s", said)
        self._refusals.append(said)
        self._remove([row])

    def _put_aside(self, row: Report) -> str:
        """Keep usage, which is money, for whoever finds out why it was refused."""
        path = self._journal.path.with_name("usage") / "refused" / f"{row.id}.xml"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_if_changed(path, row.payload["document"], mode=0o600)
        except OSError as error:
            raise JournalFailed(f"refused usage cannot be put aside: {error}") from error
        return str(path)
