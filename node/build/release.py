"""Building, checking and removing one software release."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from slapos.node.beneath import write_beneath
from slapos.node.build.folder import (
    COMPLETED,
    copy_netrc,
    forget_extends,
    prepare_folder,
    remove_release,
    write_files,
)
from slapos.node.build.local_profile import local_path, profile_digest
from slapos.node.buildout_program import buildout_command, buildout_environment, end_leftovers
from slapos.node.doors import Doors
from slapos.node.outcome import Outcome, Result, described
from slapos.node.reachability import check_python, check_reachable
from slapos.node.record import ReleaseRecord, forget, read_record, write_record
from slapos.node.space import check_free_space
from slapos.node.users import Account, owner_of
from slapos.node.work_log import WorkLog, is_shown, last_lines, telling_line
from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import ReleaseAssignment
from slapos.protocol.states import InstallationState
from slapos.system.process_lock import AlreadyRunning, process_lock
from slapos.system.runner import CommandFailed, CommandTimedOut

logger = logging.getLogger(__name__)

LOG = "build.log"
#: Seconds that a pass waits for whoever else works on a release.
PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How releases are built: `force` builds again what is built, `now` waits for no back-off.

    `patience` is for whoever else works on a release, in seconds.
    """

    force: bool = False
    now: bool = False
    buildout_debug: bool = False
    patience: float = PATIENCE


class ReleaseBuilder:
    """Brings software releases to what the master wants of them."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._settings = doors.settings
        self._layout = doors.settings.layout

    def bring(self, assignment: ReleaseAssignment, options: BuildOptions) -> Outcome:
        """Build a release, or remove it, or leave it; tell the master.

        Raises AlreadyRunning while somebody else works on the release, and nothing else of ours.
        """
        url = assignment.url
        path = self._layout.release_record(url)
        folder = self._layout.release(url)
        try:
            with process_lock(self._layout.release_lock(url), patience=options.patience):
                if assignment.state is InstallationState.DESTROYED:
                    return self._remove(assignment, folder, path)
                record = read_record(ReleaseRecord, path) if folder.is_dir() else ReleaseRecord()
                return self._build_if_needed(assignment, options, folder, path, record)
        except AlreadyRunning:
            raise
        except (SlapOSError, OSError) as error:
            return Outcome(
                subject=url,
                description=folder.name,
                result=Result.FAILED,
                cause=described(error),
            )

    def _remove(self, assignment: ReleaseAssignment, folder: Path, path: Path) -> Outcome:
        existed = folder.exists()
        if existed:
            logger.info("removing %s (%s)", assignment.url, folder)
            remove_release(folder)
        forget(path)
        self._doors.reports.forget_release(assignment.url)
        self._doors.client.report_removed(self._settings.computer_id, assignment.url)
        return Outcome(subject=assignment.url, changed=existed)

    def _build_if_needed(
        self,
        assignment: ReleaseAssignment,
        options: BuildOptions,
        folder: Path,
        path: Path,
        record: ReleaseRecord,
    ) -> Outcome:
        url = assignment.url
        digest = profile_digest(url)
        if (folder / COMPLETED).exists() and not record.url:  # built by another
            record = ReleaseRecord(url=url, profile=digest)
            write_record(path, record)
        changed = record.profile != digest
        # An attempt that was cut short, or failed before it began, has left the build before it.
        is_built = (folder / COMPLETED).exists() and not (record.running or record.failures)
        if is_built and not options.force and not changed:
            self._report_end(path, record)
            return Outcome(subject=url)
        now = self._doors.now()
        wait = 0.0 if options.force or options.now or changed else record.waits(now)
        if wait:
            self._report_error(path, record, record.cause)  # unless that is done
            return Outcome(
                subject=url,
                description=folder.name,
                result=Result.FAILED,
                cause=record.told(now),
                log=str(folder / ".slapgrid" / "log" / LOG),
                remedy="to try now: slapos node software --now",
            )
        if record.running:
            end_leftovers(folder, self._doors.clock)
        record = replace(record, url=url, profile=digest, reported=False, running=True)
        try:
            self._build(url, options, folder, path, record)
        except (SlapOSError, OSError) as error:
            return self._failed(url, folder, path, record, error)
        record = record.succeeded()
        write_record(path, record)
        self._report_end(path, record)
        return Outcome(subject=url, changed=True)

    def _build(
        self, url: str, options: BuildOptions, folder: Path, path: Path, record: ReleaseRecord
    ) -> None:
        settings = self._settings
        root = settings.software_root
        if not root.is_dir():
            raise NotADirectoryError(
                2, "software_root is not there: run 'slapos node format'", str(root)
            )
        account = owner_of(root)
        check_free_space(folder, settings.software_min_free_space, "software_min_free_space")
        check_python(account, self._doors.python)
        profile = local_path(url)
        if profile is not None:
            check_reachable(account, profile, "move the release")
        logger.info("building %s in %s", url, folder)
        prepare_folder(folder, account)
        write_record(path, record)
        (folder / COMPLETED).unlink(missing_ok=True)
        self._doors.reports.building(url)
        if options.force:
            forget_extends(folder)
            prepare_folder(folder, account)
        write_files(folder, url, settings, account, self._doors.python)
        copy_netrc(folder, account, Path(os.path.expanduser(f"~{account.name}")))
        self._run_buildout(folder, account, options)
        write_beneath(
            folder,
            COMPLETED,
            f"{self._doors.clock.now():%c}\n",
            owner=account.owner if account.user else None,
        )

    def _run_buildout(self, folder: Path, account: Account, options: BuildOptions) -> None:
        settings = self._settings
        words = [*buildout_command(folder / "bin" / "buildout")]
        words += ["-D"] if options.buildout_debug else []
        words += [
            "-U",
            f"buildout:extends-cache={folder}/extends-cache",
            f"buildout:directory={folder}",
            *(() if options.force or settings.develop else ("-N",)),
            "-c",
            f"{folder}/buildout.cfg",
        ]
        with WorkLog(folder, LOG, self._doors.clock, account.owner) as log:
            log.write(f"building as {account.name}: {' '.join(words)}")

            def on_line(line: str) -> None:
                log.write(line)
                logger.info("%s| %s", folder.name[:8], line)

            try:
                self._doors.runner.run(
                    words,
                    cwd=folder,
                    environment=buildout_environment(
                        self._doors.environment, folder, account, installs=True
                    ),
                    timeout=settings.software_timeout or None,
                    user=account.user,
                    on_line=on_line,
                )
            except CommandFailed as error:
                log.write(str(error), "ERROR")
                raise

    def _failed(
        self,
        url: str,
        folder: Path,
        path: Path,
        record: ReleaseRecord,
        error: SlapOSError | OSError,
    ) -> Outcome:
        cause, output, log, remedy = described(error), "", "", ""
        if isinstance(error, CommandFailed):
            output = last_lines(error.output)
            log = str(folder / ".slapgrid" / "log" / LOG)
            remedy = "it is tried again by a later 'slapos node software', with --now at once"
            if error.status:
                cause = f"its buildout failed with status {error.status}: {telling_line(output)}"
        if isinstance(error, CommandTimedOut):
            remedy = "if it needs longer, raise software_timeout in [slapos]"
        message = "\n".join(filter(None, (cause, output)))
        record = record.failed(self._doors.now(), cause, self._doors.identifiers.fraction())
        with suppress(OSError):  # a full disk, perhaps: it is then simply tried again
            write_record(path, record)
        with suppress(OSError):
            self._report_error(path, record, message)
        if output and not is_shown(logging.INFO):  # as which it was told line by line
            logger.error("building %s failed; its last lines:\n%s", url, output)
        return Outcome(
            subject=url,
            description=folder.name,
            result=Result.FAILED,
            cause=cause,
            log=log,
            remedy=remedy,
        )

    def _report_end(self, path: Path, record: ReleaseRecord) -> None:
        if not record.reported and self._doors.reports.available(record.url):
            write_record(path, replace(record, reported=True))

    def _report_error(self, path: Path, record: ReleaseRecord, message: str) -> None:
        if not record.reported and self._doors.reports.build_error(record.url, message):
            write_record(path, replace(record, reported=True))
