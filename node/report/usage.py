"""Usage on its way into the journal of reports: collected, and closed into a batch on disk.

A batch never changes once it is closed: what is made of it has the same bytes, and so the same
ids, each time. A batch that was handed over before a crash is thus not counted twice.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from slapos.node.beneath import UnsafePath, open_file, open_folder
from slapos.node.buildout_program import buildout_environment
from slapos.node.doors import Doors
from slapos.node.report.consumption import check_consumption, check_journal, make_journals
from slapos.node.users import Account
from slapos.protocol.errors import MalformedDocument, SlapOSError
from slapos.system.files import remove_tree, write_if_changed
from slapos.system.process_lock import process_lock

logger = logging.getLogger(__name__)

FOLDER = "var/xml_report"
#: Bytes of a document that are read; a larger one is left where it is.
LARGEST = 10_000_000
#: Bytes of a journal that is made: small enough to be sent together with other reports.
JOURNAL_SIZE = 500_000
#: Bytes of usage that may wait for the master; then no more is collected.
MOST_WAITING = 64 * 1024 * 1024
#: Seconds that the programs of etc/report of a partition may take in all.
PROGRAM_TIME = 300.0
#: Seconds to wait for somebody else who collects or hands over.
PATIENCE = 30.0


class NoRoom(SlapOSError):
    """So much usage waits for the master that no more is collected."""

    code = "no_room"


class CollectedUsage:
    """What was used, as far as it is not in the journal yet."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._folder = doors.settings.layout.state / "usage"
        self._open = self._folder / "open"

    def check_room(self) -> None:
        """See that more can be collected. Raises NoRoom; nothing that waits is ever dropped."""
        waiting = self._doors.reports.waiting().usage_size
        if waiting > MOST_WAITING:
            raise NoRoom(
                f"{waiting >> 20} MiB of usage wait for the master: until it takes them no more is "
                "collected, and no partition is destroyed; see 'slapos node doctor'"
            )

    def collect(self, reference: str, account: Account) -> None:
        """Have a partition report, and take over what it left. Raises CommandFailed."""
        layout = self._doors.settings.layout
        partition = layout.partition(reference)
        self._run_programs(reference, partition, account)
        for root, relative in (
            (partition, FOLDER),
            (layout.instance_root.resolve(), f"{FOLDER}/{reference}"),
        ):
            for folder, name, content in _documents(root, relative):
                try:
                    check_consumption(content)
                except MalformedDocument as error:
                    logger.warning("%s/%s/%s is not sent: %s", root, relative, name, error)
                    continue
                self._take(reference, name, content)
                os.unlink(name, dir_fd=folder)

    def _run_programs(self, reference: str, partition: Path, account: Account) -> None:
        programs = [p for p in sorted((partition / "etc" / "report").glob("*")) if p.is_file()]
        clock = self._doors.clock
        deadline = clock.monotonic() + PROGRAM_TIME
        for program in programs:
            os.close(open_folder(partition, FOLDER, owner=account.owner))
            name = f"slapreport.{self._doors.identifiers.token(8)}"
            self._doors.runner.run(
                [str(program), str(partition / FOLDER / name)],
                cwd=partition,
                environment=buildout_environment(self._doors.environment, partition, account),
                timeout=max(deadline - clock.monotonic(), 0.0),
                user=account.user,
                limits=self._doors.isolation.process_limits(reference),
            )

    def _take(self, reference: str, name: str, content: bytes) -> None:
        """Keep a document; the same file taken twice, after a crash, is kept once."""
        digest = hashlib.sha256(name.encode() + b"\0" + content).hexdigest()[:32]
        with self._locked():
            self._open.mkdir(parents=True, exist_ok=True)
            write_if_changed(self._open / f"{reference}.{digest}.xml", content)

    def _locked(self) -> AbstractContextManager[None]:
        """Keep others, threads too, from closing a batch while a document comes into it."""
        return process_lock(self._folder.with_name("usage.lock"), patience=PATIENCE)

    def hand_over(self) -> None:
        """Close what was collected, and write all that is closed into the journal of reports.

        Raises JournalFailed, AlreadyRunning, OSError; it is then kept.
        """
        with self._locked():
            self._hand_over()

    def _hand_over(self) -> None:
        if self._open.is_dir() and any(self._open.iterdir()):
            moment = self._doors.clock.now().strftime("%Y%m%dT%H%M%S.%fZ")
            self._open.rename(self._folder / f"batch-{moment}")
        for batch in sorted(self._folder.glob("batch-*")):
            self._doors.reports.usage(
                [(_id(batch.name, journal), journal.decode()) for journal in self._journals(batch)]
            )
            remove_tree(batch)
        self._hand_over_own()

    def _journals(self, batch: Path) -> list[bytes]:
        moment = re.sub(
            r"batch-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d).*", r"\1-\2-\3 at \4:\5:\6", batch.name
        )
        documents = [
            (path.name.rsplit(".", 2)[0], path.read_bytes()) for path in sorted(batch.iterdir())
        ]
        node = self._doors.settings.computer_id
        return make_journals(node, moment, documents, largest=JOURNAL_SIZE)

    def _hand_over_own(self) -> None:
        """Write the journals of the node itself into the journal of reports, as they are."""
        settings = self._doors.settings
        relative = f"{FOLDER}/{settings.computer_id}"
        for folder, name, content in _documents(settings.instance_root.resolve(), relative):
            try:
                check_journal(content)
            except MalformedDocument as error:
                logger.warning("%s/%s is not sent: %s", relative, name, error)
                continue
            # Another file may have this name and this content some day, and counts again.
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            file = f"{name} {status.st_ino} {status.st_mtime_ns}"
            self._doors.reports.usage([(_id(file, content), content.decode())])
            os.unlink(name, dir_fd=folder)


def _id(origin: str, content: bytes) -> str:
    return hashlib.sha256(origin.encode() + b"\0" + content).hexdigest()[:32]


def _documents(root: Path, relative: str) -> Iterator[tuple[int, str, bytes]]:
    """Yield (descriptor of the folder, name, content) of the plain files in a folder.

    At most LARGEST bytes in all: the rest comes with the next report.
    """
    try:
        folder = open_folder(root, relative)
    except FileNotFoundError:
        return
    try:
        total = 0
        for name in sorted(os.listdir(folder)):
            try:
                with os.fdopen(open_file(folder, name, os.O_RDONLY), "rb") as stream:
                    content = stream.read(LARGEST + 1)
            except (OSError, UnsafePath) as error:
                logger.warning("%s/%s/%s is not sent: %s", root, relative, name, error)
                continue
            if len(content) > LARGEST:
                logger.warning("%s/%s/%s is too large to be sent", root, relative, name)
                continue
            total += len(content)
            if total > LARGEST:
                logger.warning("%s/%s: the other documents are sent later", root, relative)
                return
            yield folder, name, content
    finally:
        os.close(folder)
