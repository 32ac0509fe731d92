"""Destroying a partition: in its time, after its last programs, with all its data."""

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from slapos.node.beneath import read_beneath
from slapos.node.buildout_program import buildout_environment
from slapos.node.doors import Doors
from slapos.node.format.format import RESOURCE
from slapos.node.instantiate.keep_retention import DELAY
from slapos.node.monitor.billing import bill_partition
from slapos.node.monitor.history import History
from slapos.node.record import PartitionRecord, forget, read_record
from slapos.node.supervise.configuration import find_executables
from slapos.node.supervise.orphans import end_inhabitants
from slapos.node.users import Account
from slapos.protocol.errors import NotFound, SlapOSError
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState
from slapos.system.files import remove_tree, write_if_changed

logger = logging.getLogger(__name__)

DATE = ".slapos-retention-lock-date"
#: Names the processes that have to end before the partition is destroyed.
WAITED_FOR = ".slapos-report-wait-service-list"
SECONDS_A_DAY = 86400
#: Seconds that `sbin/destroy` may take.
DESTROY_TIME = 3600.0
#: Seconds between two looks at whether the programs of `etc/prerm` have ended.
PRERM_WAIT = 5.0


class NotYet(SlapOSError):
    """The partition is kept for now; the message says until when, `wait` in how many seconds."""

    code = "not_yet"

    def __init__(self, message: str, *, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


def destroy_partition(wanted: PartitionInformation, account: Account, doors: Doors) -> None:
    """Destroy it and tell the master. Raises NotYet, SlapOSError, OSError."""
    reference = wanted.reference
    folder = doors.settings.layout.partition(reference)
    doors.supervisor.stop_partition(reference)
    doors.reports.forget_partition(reference)  # what follows is said at once
    with suppress(SlapOSError):  # the master only shows it
        doors.client.report_state(doors.settings.computer_id, reference, InstanceState.STOPPED)
    _check_retention(folder, doors.now())
    run_last_programs(reference, folder, account, doors)
    path = doors.settings.layout.partition_record(reference)
    was_left = read_record(PartitionRecord, path).left_since
    end_and_empty(reference, folder, account, doors)
    if was_left:
        doors.reports.occupant(reference, "", "", doors.now())
    forget(path)
    with suppress(NotFound):  # it knows already
        doors.client.report_state(
            doors.settings.computer_id,
            reference,
            InstanceState.DESTROYED,
            timestamp=wanted.timestamp,
        )


def end_and_empty(
    reference: str,
    folder: Path,
    account: Account,
    doors: Doors,
    put_aside: Callable[[], None] = lambda: None,
) -> None:
    """End all that runs in a partition, and remove all of it that `put_aside` has left there."""
    bill_partition(History(doors.settings.layout.measurements), doors, reference)
    logger.info("%s: destroying it", reference)
    program = folder / "sbin" / "destroy"
    if program.is_file():
        doors.runner.run(
            [str(program)],
            cwd=folder,
            environment=buildout_environment(doors.environment, folder, account),
            timeout=DESTROY_TIME,
            user=account.user,
            limits=doors.isolation.process_limits(reference),
        )
    doors.supervisor.stop_partition(f"{reference}-prerm")
    groups = (reference, f"{reference}-prerm")
    end_inhabitants(folder, groups, doors.settings.layout.supervisor_socket, doors.clock)
    put_aside()
    _remove_content(reference, folder, doors)
    for group in groups:
        remove_tree(doors.settings.layout.output(group))
    forget(doors.settings.layout.partition_promises(reference))


def kept_until(folder: Path, now: float) -> float:
    """Return until when data has to be kept that is to go now, in seconds since 1970."""
    until = _number(folder, DATE)
    if until is not None:
        return until
    return now + max(_number(folder, DELAY) or 0.0, 0.0) * SECONDS_A_DAY


def _check_retention(folder: Path, now: float) -> None:
    """Fix the date of destruction the first time, and hold it. Raises NotYet."""
    until = kept_until(folder, now)
    if now < until:
        write_if_changed(folder / DATE, str(until))
        days = (until - now) / SECONDS_A_DAY
        raise NotYet(
            f"its data is kept for {days:.1f} days more, as was asked when it was made",
            wait=until - now,
        )


def _number(folder: Path, name: str) -> float | None:
    content = read_beneath(folder, name, 100)
    try:
        value = float(content or b"")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def run_last_programs(reference: str, folder: Path, account: Account, doors: Doors) -> None:
    """Start what is in etc/prerm, once, and see that it has ended. Raises NotYet."""
    group = f"{reference}-prerm"
    programs = find_executables(folder / "etc" / "prerm")
    if not programs:
        return
    if read_beneath(folder, WAITED_FOR) is None:
        doors.supervisor.run_group(group, programs, folder, account)
        names = "".join(f"{group}:{program.name}\n" for program in programs)
        write_if_changed(folder / WAITED_FOR, names)
    running = [p.name for p in doors.supervisor.processes() if p.group == group and p.is_running]
    if running:
        raise NotYet(f"{', '.join(running)} in etc/prerm has not ended yet", wait=PRERM_WAIT)


def _remove_content(reference: str, folder: Path, doors: Doors) -> None:
    """Remove all that is in it but what `node format` put there."""
    certificates = doors.settings.certificate_repository_path
    if certificates is not None:
        for suffix in ("key", "crt"):
            (certificates / f"{reference}.{suffix}").unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name != RESOURCE:
            remove_tree(path)
