"""What a partition may use: defaults of the node, over them its release's, over them its order's.

The same four words everywhere: `memory`, `cpu`, `processes`, `open_files`; where they stand among
other keys, in slapos.cfg and in an order, they begin with `partition_`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.protocol.errors import SlapOSError
from slapos.system.settings import parse_size

#: The release's file, beside its `periodicity`.
FILE = "limits.json"
LARGEST_FILE = 10_000
PREFIX = "partition_"
#: What lifts a limit that was set further down.
NONE = "none"
#: Below these, nothing could be started at all.
SMALLEST_MEMORY, SMALLEST_CPU, FEWEST_PROCESSES, FEWEST_FILES = 8 * 1024**2, 0.01, 4, 32
LARGEST = 2.0**50


class InvalidLimit(SlapOSError):
    """A limit of a partition is nonsense, or more than the node allows."""

    code = "invalid_limit"


@dataclass(frozen=True, kw_only=True)
class PartitionLimits:
    """What all processes of a partition may use together; None is as much as there is.

    `memory` is in bytes, swap included, `cpu` in cores. `open_files` is for each process.
    """

    memory: int | None = None
    cpu: float | None = None
    processes: int | None = None
    open_files: int | None = None


NAMES = tuple(field.name for field in fields(PartitionLimits))
NO_LIMITS = PartitionLimits()


class LimitSettings(Protocol):
    """The settings of a node that limits come from."""

    @property
    def partition_limits(self) -> PartitionLimits:
        """What a partition gets that asks for nothing."""
        ...

    @property
    def partition_maximum(self) -> PartitionLimits:
        """What no partition may go beyond."""
        ...


def limits_for(
    settings: LimitSettings,
    release: Path | None,
    order: Mapping[str, Any],
    of_release: Mapping[str, Any] | None = None,
) -> PartitionLimits:
    """Return the limits of a partition; `order` is the filter that came with its order.

    `of_release` is what its release says, where that was read already. Raises InvalidLimit, which
    names the key.
    """
    if of_release is None:
        of_release = read_limits(release)
    if not of_release and not order and settings.partition_maximum == NO_LIMITS:
        return settings.partition_limits
    values = {name: getattr(settings.partition_limits, name) for name in NAMES}
    sources = dict.fromkeys(NAMES, "slapos.cfg")
    for given, where in ((of_release, FILE), (_of_order(order), "its order")):
        for name, raw in given.items():
            shown = name if where == FILE else PREFIX + name
            try:
                values[name] = parse_limit(name, raw)
            except ValueError as error:
                raise InvalidLimit(f"{shown} = {raw!r} in {_place(where, release)}: {error}") from (
                    error
                )
            sources[name] = _place(where, release)
    for name in NAMES:
        most = getattr(settings.partition_maximum, name)
        if most is None:
            continue
        if values[name] is None:
            values[name] = most
        elif values[name] > most:
            raise InvalidLimit(
                f"{name} = {values[name]} in {sources[name]} is more than a partition of this node "
                f"may have: ask for at most {most}, or have {PREFIX}{name}_maximum raised in its "
                "slapos.cfg"
            )
    return PartitionLimits(**values)


def parse_limit(name: str, raw: Any) -> int | float | None:
    """Return one limit from what a person wrote; None for `none`. Raises ValueError."""
    if raw is None or (isinstance(raw, str) and raw.strip().lower() == NONE):
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(f"it must be {_EXPECTED[name]}, or {NONE}")
    try:
        value = _READERS[name](str(raw))
    except (ValueError, OverflowError):
        raise ValueError(f"it must be {_EXPECTED[name]}, or {NONE}") from None
    smallest = _SMALLEST[name]
    if not smallest <= value < LARGEST:
        raise ValueError(f"it must be {smallest} or more, and possible")
    return value


def _cores(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


_READERS: dict[str, Callable[[str], int | float]] = {
    "memory": parse_size,
    "cpu": _cores,
    "processes": int,
    "open_files": int,
}
_EXPECTED = {
    "memory": "a size such as 512M",
    "cpu": "a number of cores such as 1.5",
    "processes": "a whole number",
    "open_files": "a whole number",
}
_SMALLEST = {
    "memory": SMALLEST_MEMORY,
    "cpu": SMALLEST_CPU,
    "processes": FEWEST_PROCESSES,
    "open_files": FEWEST_FILES,
}


def read_limits(release: Path | None) -> Mapping[str, Any]:
    """Return what a release says of limits, as it is written there. Raises InvalidLimit."""
    if release is None:
        return {}
    try:
        content = read_beneath(release, FILE, LARGEST_FILE)
        value = {} if content is None else json.loads(content)
    except (UnsafePath, ValueError, RecursionError) as error:
        raise InvalidLimit(f"{release / FILE} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InvalidLimit(f'{release / FILE} is no JSON object such as {{"memory": "512M"}}')
    for name in value:
        if name not in NAMES:
            raise InvalidLimit(
                f"{name!r} in {release / FILE} is no limit: there are {', '.join(NAMES)}"
            )
    return value


def _of_order(order: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: order[PREFIX + name] for name in NAMES if PREFIX + name in order}


def _place(where: str, release: Path | None) -> str:
    return str(release / FILE) if where == FILE and release is not None else where
