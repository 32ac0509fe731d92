"""Control groups: one a partition, in the unified hierarchy (v2), in separate ones (v1), or mixed.

A group is plain folders and files: `<mount>/slapos/<node>/<partition>/`, below each mount that has
one of the controllers. The place depends only on the instance root, so that the agent, a command
run by hand and supervisord mean the same group wherever they themselves are.
"""

import errno
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slapos.node.isolate.limits import PartitionLimits
from slapos.protocol.errors import SlapOSError

#: What we limit. A hierarchy without any of these is not touched.
CONTROLLERS = ("memory", "cpu", "pids")
#: The folder below each mount, or below the group that an ordinary user was given.
TOP = "slapos"
#: Where the processes go that were in the group that we were given: in v2 a group whose children
#: are limited may have none of its own.
OWN = "slapos-node"
PROCS = "cgroup.procs"
SUBTREE = "cgroup.subtree_control"
#: Microseconds in which a partition may use its share of the processors.
PERIOD = 100_000
#: What the kernel calls no limit.
V1_NONE, V2_NONE = "-1", "max"
#: Bytes that stand for no limit where one is read.
V1_ENDLESS = 2**62


class CgroupFailed(SlapOSError):
    """A control group could not be made or limited."""

    code = "cgroup_failed"


@dataclass(frozen=True)
class Hierarchy:
    """A mounted tree of groups: its controllers of ours, and whether it is the unified one.

    `base` is the folder below which we may work.
    """

    base: Path
    controllers: tuple[str, ...]
    is_unified: bool


@dataclass(frozen=True)
class Group:
    """A partition's group in one hierarchy: its folder, and what is to be written to its files.

    A file whose name ends with `?` is left out where the kernel has none.
    """

    folder: Path
    controllers: tuple[str, ...]
    is_unified: bool
    values: tuple[tuple[str, str], ...]

    @property
    def procs(self) -> Path:
        """The file that a process id is written to."""
        return self.folder / PROCS

    def make(self) -> bool:
        """Make it with its limits unless it is there; return whether it was made.

        Raises CgroupFailed.
        """
        if self.is_made():
            return False
        try:
            node, top = self.folder.parents[:2]
            if self.is_unified and not _is_enabled(top.parent, self.controllers):
                _clear(top.parent)
                _enable(top.parent, self.controllers)
            for folder in (top, node):
                folder.mkdir(exist_ok=True)
                if self.is_unified:
                    _enable(folder, self.controllers)
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise CgroupFailed(f"the cgroup {self.folder} cannot be made: {_said(error)}") from (
                error
            )
        self.limit()
        return True

    def is_made(self) -> bool:
        """Return whether it is there, with its limits."""
        return self.folder.is_dir() and not self._is_bare()

    def _is_bare(self) -> bool:
        """Return whether its maker was killed before the last of its limits was written."""
        limits = [pair for pair in self.values if pair[1].split()[0] not in (V1_NONE, V2_NONE)]
        if not limits:
            return False
        try:
            word = (self.folder / limits[-1][0].removesuffix("?")).read_text().split()[0]
        except (OSError, IndexError):
            return False
        return word in (V1_NONE, V2_NONE) or (word.isdigit() and int(word) >= V1_ENDLESS)

    def limit(self) -> None:
        """Write its limits; they bind what runs in it at once. Raises CgroupFailed."""
        for name, value in self.values:
            path = self.folder / name.removesuffix("?")
            if name.endswith("?") and not path.exists():
                continue
            try:
                path.write_text(value)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise CgroupFailed(
                        f"{path} cannot be set to {value} while its processes use more: stop the "
                        "instance first, or give it more"
                    ) from error
                raise CgroupFailed(f"{path} cannot be set to {value}: {_said(error)}") from error

    def remove(self) -> bool:
        """Remove it; return whether it is gone, which it is not while processes are in it."""
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def find_hierarchies(
    mounts: str, memberships: str, *, is_root: bool
) -> tuple[tuple[Hierarchy, ...], str]:
    """Return where groups can be made, and why not where they cannot (empty when they can).

    `mounts` is what /proc/self/mountinfo holds, `memberships` what /proc/self/cgroup does. Root
    works below the top of each hierarchy, anybody else below the group that was given to him.
    """
    found: list[Hierarchy] = []
    taken: set[str] = set()
    refused = "this machine has no cgroups"
    for mount, controllers, is_unified in _mounted(mounts):
        ours = tuple(name for name in CONTROLLERS if name in controllers and name not in taken)
        if not ours:
            continue
        base = mount if is_root else mount / _own_group(memberships, controllers, is_unified)
        if not os.access(base, os.W_OK) or not os.access(base / PROCS, os.W_OK):
            refused = f"{base} is not ours to write to"
            if not is_root:
                refused += ": run the node as root, or give its user a group (Delegate=yes)"
            continue
        if is_root and is_unified and _is_occupied(base, ours):
            refused = f"{base} has processes of its own, as in a container"
            continue
        found.append(Hierarchy(base, ours, is_unified))
        taken.update(ours)
    return tuple(found), "" if found else refused


def group_of(
    hierarchy: Hierarchy, instance_root: Path, reference: str, limits: PartitionLimits
) -> Group:
    """Return the group of a partition; nothing is made yet."""
    node = hashlib.md5(bytes(instance_root), usedforsecurity=False).hexdigest()[:12]
    render = _v2_values if hierarchy.is_unified else _v1_values
    return Group(
        folder=hierarchy.base / TOP / node / reference,
        controllers=hierarchy.controllers,
        is_unified=hierarchy.is_unified,
        values=tuple(pair for name in hierarchy.controllers for pair in render(name, limits)),
    )


def _v1_values(controller: str, limits: PartitionLimits) -> Iterable[tuple[str, str]]:
    match controller:
        case "memory":
            memory = _text(limits.memory, V1_NONE)
            # Memory with swap is never to be less than memory: first out of the way, then as much.
            yield "memory.memsw.limit_in_bytes?", V1_NONE
            yield "memory.limit_in_bytes", memory
            yield "memory.memsw.limit_in_bytes?", memory
        case "cpu":
            yield "cpu.cfs_period_us", str(PERIOD)
            yield "cpu.cfs_quota_us", _quota(limits, V1_NONE)
        case "pids":
            yield "pids.max", _text(limits.processes, V2_NONE)


def _v2_values(controller: str, limits: PartitionLimits) -> Iterable[tuple[str, str]]:
    match controller:
        case "memory":
            yield "memory.max", _text(limits.memory, V2_NONE)
            yield "memory.swap.max?", V2_NONE if limits.memory is None else "0"
        case "cpu":
            yield "cpu.max", f"{_quota(limits, V2_NONE)} {PERIOD}"
        case "pids":
            yield "pids.max", _text(limits.processes, V2_NONE)


def _text(limit: int | None, none: str) -> str:
    return none if limit is None else str(limit)


def _quota(limits: PartitionLimits, none: str) -> str:
    return none if limits.cpu is None else str(round(limits.cpu * PERIOD))


def _is_occupied(base: Path, controllers: tuple[str, ...]) -> bool:
    """Return whether a v2 group cannot pass controllers on, for the processes that are in it.

    The top of a machine's hierarchy, which has no type, is exempt from that.
    """
    if not (base / "cgroup.type").exists() or _is_enabled(base, controllers):
        return False
    return bool((base / PROCS).read_text().split())


def _clear(base: Path) -> None:
    """Move what runs in a group that we were given into one below it. Raises OSError."""
    if not (base / "cgroup.type").exists():
        return
    own = base / OWN
    own.mkdir(exist_ok=True)
    for pid in (base / PROCS).read_text().split():
        with suppress(ProcessLookupError):
            (own / PROCS).write_text(pid)


def _is_enabled(folder: Path, controllers: tuple[str, ...]) -> bool:
    path = folder / SUBTREE
    return path.exists() and set(controllers) <= set(path.read_text().split())


def _enable(folder: Path, controllers: tuple[str, ...]) -> None:
    """Have the children of a v2 group limited. Raises OSError."""
    if not _is_enabled(folder, controllers):
        (folder / SUBTREE).write_text(" ".join(f"+{name}" for name in controllers))


def _mounted(mounts: str) -> Iterable[tuple[Path, tuple[str, ...], bool]]:
    """Yield (mount point, controllers, whether it is the unified one), as they are mounted."""
    for line in mounts.splitlines():
        words = line.split()
        if "-" not in words[6:]:
            continue
        kind, _, options = words[words.index("-", 6) + 1 :][:3]
        mount = Path(words[4].encode().decode("unicode_escape"))
        if kind == "cgroup":
            yield mount, tuple(options.split(",")), False
        elif kind == "cgroup2":
            with suppress(OSError):
                yield mount, tuple((mount / "cgroup.controllers").read_text().split()), True


def _own_group(memberships: str, controllers: tuple[str, ...], is_unified: bool) -> str:
    """Return the group that this process is in, or was before it was cleared, as a relative path.

    A name that cannot be, where it is in none.
    """
    for line in memberships.splitlines():
        _, names, path = line.split(":", 2)
        if (not names) if is_unified else set(names.split(",")) & set(controllers):
            return path.removesuffix(f"/{OWN}").lstrip("/")
    return "not-in-any"


def _said(error: OSError) -> str:
    return error.strerror or str(error)
