"""Services begin within the limits of their partition. Loaded by supervisord itself."""

from collections.abc import Callable
from typing import Any

from supervisor.process import Subprocess

from slapos.node.isolate.cgroup import CgroupFailed
from slapos.node.isolate.confinement import confinement_file, read_confinement
from slapos.node.layout import Layout

#: The group of the last programs of a partition.
LAST = "-prerm"


def confine_processes(layout: Layout) -> None:
    """Have each process that supervisord starts bound before it becomes its user.

    supervisor has no extension point there: the method by which the child, between fork and exec,
    becomes its user is replaced by one that does this first. supervisord has one thread only.
    """
    become_user: Callable[[Any], str | None] = Subprocess.set_uid

    def set_uid(process: Any) -> str | None:
        try:
            confine(layout, process.group.config.name)
        except (CgroupFailed, OSError) as error:
            # It runs all the same: a service that is down is worse. This goes to its log.
            process.config.options.write(2, f"its limits could not be set: {error}\n")
        return become_user(process)

    Subprocess.set_uid = set_uid


def confine(layout: Layout, group: str) -> None:
    """Bind this process by the limits of its partition. Raises CgroupFailed, OSError."""
    confinement = read_confinement(confinement_file(layout, group.removesuffix(LAST)))
    if confinement is None:
        return
    confinement.make()
    confinement.process_limits().bind(0)
