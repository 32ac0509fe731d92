"""Have the partition's processes bound by its limits, those that run already included."""

from contextlib import suppress

import psutil

from slapos.node.doors import Doors
from slapos.node.instantiate.step import Work
from slapos.node.isolate.confinement import Confinement
from slapos.node.supervise.supervisor import SupervisorFailed
from slapos.protocol.messages import PartitionInformation


def set_limits(work: Work, doors: Doors) -> None:
    """Bind them. Raises InvalidLimit, CgroupFailed."""
    keep_limits(work.wanted, doors)


def keep_limits(wanted: PartitionInformation, doors: Doors) -> None:
    """Bind them again where something changed. Raises InvalidLimit, CgroupFailed."""
    layout = doors.settings.layout
    release = layout.release(wanted.software_url) if wanted.software_url else None
    changed = doors.isolation.limit(wanted, release)
    if changed is None or not (layout.supervisor_groups / f"{wanted.reference}.conf").exists():
        return
    with suppress(SupervisorFailed):
        for process in doors.supervisor.processes():
            if process.group == wanted.reference and process.pid:
                _bind_all(process.pid, changed)


def _bind_all(pid: int, confinement: Confinement) -> None:
    """Bind a process and all that it has started; it may have been started without any limits."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(OSError):  # it has just ended
                confinement.process_limits().bind(each.pid)
