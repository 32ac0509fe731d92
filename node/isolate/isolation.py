"""Keeping the partitions of a node within their limits."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slapos.node.isolate.cgroup import (
    CgroupFailed,
    Hierarchy,
    find_hierarchies,
    group_of,
)
from slapos.node.isolate.confinement import (
    Confinement,
    confinement_file,
    read_confinement,
    write_confinement,
)
from slapos.node.isolate.limits import NO_LIMITS, PartitionLimits, limits_for
from slapos.node.settings import NodeSettings
from slapos.protocol.messages import PartitionInformation
from slapos.system.runner import ProcessLimits

logger = logging.getLogger(__name__)


class Isolation:
    """What binds the processes of the partitions of one node. May be shared between threads."""

    def __init__(
        self, settings: NodeSettings, hierarchies: tuple[Hierarchy, ...], refusal: str = ""
    ) -> None:
        """`refusal`: why there are no control groups, where there are none."""
        self._settings = settings
        self._layout = settings.layout
        self.hierarchies = hierarchies
        self.refusal = refusal

    def limit(self, wanted: PartitionInformation, release: Path | None) -> Confinement | None:
        """Have the limits of a partition bind all that will be started in it.

        Its groups bind at once what is in them already. Returns what was made or changed, None when
        all was so. Raises InvalidLimit, CgroupFailed.
        """
        path = confinement_file(self._layout, wanted.reference)
        known = read_confinement(path)
        limits = limits_for(self._settings, release, wanted.filter or {})
        confinement = self._wanted(wanted, limits, known)
        if confinement is None:
            return None
        made = confinement.make()
        if known == confinement:
            return confinement if made else None
        for group in confinement.groups:
            group.limit()
        write_confinement(path, confinement)
        return confinement

    def is_limited(
        self, wanted: PartitionInformation, release: Path | None, of_release: Mapping[str, Any]
    ) -> bool:
        """Return whether a partition has its limits already, so that `limit` has nothing to do.

        `of_release` is what `read_limits` said of its release. Raises InvalidLimit.
        """
        known = read_confinement(confinement_file(self._layout, wanted.reference))
        limits = limits_for(self._settings, release, wanted.filter or {}, of_release)
        confinement = self._wanted(wanted, limits, known)
        if confinement is None:
            return True
        return known == confinement and all(group.is_made() for group in confinement.groups)

    def _wanted(
        self, wanted: PartitionInformation, limits: PartitionLimits, known: Confinement | None
    ) -> Confinement | None:
        """Return what is to bind a partition, None for nothing, which nothing ever did."""
        if limits == NO_LIMITS and known is None:
            return None
        hierarchies = self.hierarchies
        if replace(limits, open_files=None) == NO_LIMITS and not (known and known.groups):
            hierarchies = ()  # where nothing was ever limited, nothing is to be lifted
        groups = tuple(
            group_of(each, self._layout.instance_root, wanted.reference, limits)
            for each in hierarchies
        )
        counts = any("pids" in group.controllers for group in groups)
        return Confinement(
            limits=limits,
            groups=groups,
            # The kernel counts by user: only where each partition has its own can it be bounded so.
            processes=None if counts or os.geteuid() != 0 else limits.processes,
        )

    def process_limits(self, reference: str) -> ProcessLimits | None:
        """Return what a program of a partition is to be bound by, from what is on disk.

        Where its groups cannot be made, that is warned of, and they are left out.
        """
        confinement = read_confinement(confinement_file(self._layout, reference))
        if confinement is None:
            return None
        try:
            confinement.make()
        except CgroupFailed as error:
            logger.warning("%s: its programs run without some limits: %s", reference, error)
            return Confinement(
                limits=confinement.limits, processes=confinement.processes
            ).process_limits()
        return confinement.process_limits()

    def is_free(self, reference: str) -> bool:
        """Return whether nothing binds a partition, so that `free` has nothing to do."""
        return not os.path.exists(confinement_file(self._layout, reference))

    def free(self, reference: str) -> None:
        """Remove what bound a partition that is free now; later, where something still runs."""
        path = confinement_file(self._layout, reference)
        confinement = read_confinement(path)
        if confinement is None:
            return
        gone = [group.remove() for group in confinement.groups]
        if all(gone):
            path.unlink(missing_ok=True)


def make_isolation(settings: NodeSettings) -> Isolation:
    """Return what isolates partitions on this machine, with what the kernel lets us do."""
    is_root = os.geteuid() == 0
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
        memberships = Path("/proc/self/cgroup").read_text()
    except OSError as error:
        return Isolation(settings, (), f"the cgroups of this machine cannot be found: {error}")
    found, refusal = find_hierarchies(mounts, memberships, is_root=is_root)
    return Isolation(settings, found, refusal)
