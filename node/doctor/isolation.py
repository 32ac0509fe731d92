"""Checks of what keeps partitions apart: limits, and who may reach whom."""

import os
import shutil
from collections.abc import Iterator

from slapos.node.doctor.finding import Examined
from slapos.node.isolate.confinement import confinement_file, read_confinement
from slapos.node.isolate.firewall import PROGRAM, SYSTEM
from slapos.system.finding import Finding, ok, problem, warning

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


def check_firewall(examined: Examined) -> Iterator[Finding]:
    """See that the rules for who may reach the partitions are in force, where they are wanted."""
    if not examined.doors.settings.firewall:
        yield ok("there is none (firewall = false): all may reach the partitions")
        return
    if os.geteuid() != 0:
        yield warning(
            "firewall = true has no effect: only root can have one", "run the node as root"
        )
        return
    if shutil.which(PROGRAM, path=SYSTEM) is None:
        yield problem("the program nft is not there", "install Debian's nftables")
        return
    in_force = examined.doors.firewall.is_in_force()
    if in_force:
        yield ok(f"the rules are in force: 'nft list table inet {examined.doors.firewall.table}'")
    else:
        yield problem(
            "the rules for who may reach the partitions are not in force",
            "run 'slapos node instance'; something else on this machine may have removed them",
        )
