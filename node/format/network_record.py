"""What is kept on disk of a node's network: which addresses partitions have, what format added."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slapos.node.format.network_state import Item, Kind
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.files import write_if_changed


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """What was given and added.

    `assigned`: for each partition its addresses and networks by role (`ipv4`, `ipv6`, `range`, …).
    `added`: what format added since the machine was started, or was about to add.
    """

    node_address: str = ""
    assigned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    added: frozenset[Item] = frozenset()


def read_record(path: Path, boot: str) -> NetworkRecord:
    """Read the record; what was added before another `boot` is gone with that.

    Raises InvalidConfiguration.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return NetworkRecord()
    except ValueError as error:
        raise _unreadable(path, error) from error
    try:
        added = (
            frozenset(Item(**{**item, "kind": Kind(item["kind"])}) for item in value["added"])
            if value["boot"] == boot
            else frozenset()
        )
        return NetworkRecord(
            node_address=value["node_address"], assigned=value["assigned"], added=added
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def write_record(path: Path, record: NetworkRecord, boot: str) -> None:
    """Write the record, when it has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {
        "boot": boot,
        "node_address": record.node_address,
        "assigned": record.assigned,
        "added": [dataclasses.asdict(item) for item in sorted(record.added, key=str)],
    }
    write_if_changed(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def _unreadable(path: Path, error: Exception) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{path}, in which node format keeps what it added to interfaces, is damaged ({error!r}): "
        "restore it, or remove it; then what is on the interfaces now counts as the machine's own"
    )
