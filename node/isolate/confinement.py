"""What binds the processes of one partition, as it is kept on disk for whoever starts one.

supervisord reads it at each start of a service, so that changed limits need no restart of it, and
makes the groups again that a reboot removed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slapos.node.isolate.cgroup import Group
from slapos.node.isolate.limits import NO_LIMITS, PartitionLimits
from slapos.node.layout import Layout
from slapos.system.files import write_if_changed
from slapos.system.runner import ProcessLimits


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """The limits of a partition, and how they are kept.

    `groups` are its control groups; `processes` bounds the processes of its user, and is set only
    where no group does that.
    """

    limits: PartitionLimits = NO_LIMITS
    groups: tuple[Group, ...] = ()
    processes: int | None = None

    def make(self) -> bool:
        """Make its groups unless they are there; return whether one was made.

        Raises CgroupFailed.
        """
        made = [group.make() for group in self.groups]
        return any(made)

    def process_limits(self) -> ProcessLimits:
        """Return what a process of the partition is to be bound by."""
        return ProcessLimits(
            cgroup_procs=tuple(group.procs for group in self.groups),
            open_files=self.limits.open_files,
            processes=self.processes,
        )


def confinement_file(layout: Layout, reference: str) -> Path:
    """Return where the confinement of a partition is kept; only the node may look there."""
    return layout.state / "limits" / f"{reference}.json"


def read_confinement(path: Path) -> Confinement | None:
    """Return what was kept; None where there is nothing, or nothing to make sense of."""
    try:
        value = json.loads(path.read_text())
        return Confinement(
            limits=PartitionLimits(**value["limits"]),
            groups=tuple(_group(item) for item in value["groups"]),
            processes=value["processes"],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_confinement(path: Path, confinement: Confinement) -> None:
    """Keep it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(asdict(confinement), indent=1, sort_keys=True, default=str) + "\n"
    write_if_changed(path, text, mode=0o600)


def _group(value: dict[str, Any]) -> Group:
    return Group(
        folder=Path(value["folder"]),
        controllers=tuple(value["controllers"]),
        is_unified=value["is_unified"],
        values=tuple((name, text) for name, text in value["values"]),
    )
