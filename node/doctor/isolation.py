"""Checks of what keeps partitions apart: whether limits can be kept, and are."""

from collections.abc import Iterator

from slapos.node.doctor.finding import Examined, Finding, ok, problem, warning
from slapos.node.isolate.confinement import confinement_file, read_confinement

#: What needs which controller.
NEEDED = {"memory": "partition_memory", "cpu": "partition_cpu", "pids": "partition_processes"}


def check_limits(examined: Examined) -> Iterator[Finding]:
    """See which limits this machine can keep, and that those of the partitions are in force."""
    isolation = examined.doors.isolation
    kept = {name: each for each in isolation.hierarchies for name in each.controllers}
    missing = [setting for name, setting in NEEDED.items() if name not in kept]
    if missing:
        yield warning(
            f"{', '.join(missing)} cannot be kept: "
            + (isolation.refusal or "the kernel has no controller for it"),
            "limits of open files are kept all the same; for the others run the node as root on a "
            "machine with cgroups",
        )
    layout = examined.doors.settings.layout
    for folder in examined.partitions:
        confinement = read_confinement(confinement_file(layout, folder.name))
        for group in confinement.groups if confinement else ():
            if not group.folder.is_dir():
                yield problem(
                    f"{folder.name}: its limits are not in force, {group.folder} is not there",
                    "start its services again: 'slapos node restart "
                    f"{folder.name}:*', or 'slapos node instance --now'",
                )
    if kept:
        versions = " and ".join(
            sorted({f"cgroup v{2 if each.is_unified else 1}" for each in isolation.hierarchies})
        )
        yield ok(f"limits of {', '.join(sorted(kept))} are kept by {versions}")
