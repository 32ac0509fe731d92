"""Who may reach the addresses of each partition, from what its order says and the node knows.

Unless its order opens it, a partition is reached by those of its own instance tree, by what
`fw_authorized_sources` names, and by what is no partition on this machine: root, its operators,
its own services.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slapos.protocol.errors import SlapOSError
from slapos.protocol.messages import PartitionInformation

RESTRICTED = "fw_restricted_access"
AUTHORIZED = "fw_authorized_sources"
REJECTED = "fw_rejected_sources"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class InvalidSource(SlapOSError):
    """An order says nonsense about who may reach its instance."""

    code = "invalid_source"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may reach one partition, whose processes belong to `uid`.

    `tree` tells one instance tree from another. `networks` are its addresses. Where it is not
    restricted, all may reach it but those in `rejected`.
    """

    reference: str
    uid: int
    tree: str
    networks: tuple[Network, ...]
    is_restricted: bool = True
    authorized: tuple[Network, ...] = ()
    rejected: tuple[Network, ...] = ()


def sources(order: Mapping[str, Any], key: str) -> tuple[Network, ...]:
    """Return the addresses and networks of a key of an order. Raises InvalidSource."""
    found = []
    for word in str(order.get(key) or "").replace(",", " ").split():
        try:
            found.append(ipaddress.ip_network(word, strict=False))
        except ValueError as error:
            raise InvalidSource(
                f"{key} has {word!r} in its order: it must be addresses or networks such as "
                "192.0.2.0/24, with spaces between"
            ) from error
    return tuple(found)


def is_restricted(order: Mapping[str, Any]) -> bool:
    """Return whether only those may reach it that are named. Raises InvalidSource."""
    word = str(order.get(RESTRICTED) or "on").lower()
    if word not in ("on", "off"):
        raise InvalidSource(f"{RESTRICTED} = {word!r} in its order: it must be on or off")
    return word == "on"


def tree_of(wanted: PartitionInformation) -> str:
    """Return what tells one instance tree from another: the partition itself where unknown."""
    for key in ("root_instance_short_title", "root_instance_title"):
        if title := wanted.parameters.get(key):
            return f"tree {title}"
    return f"partition {wanted.reference}"


def addresses_in(entries: Iterable[Any]) -> tuple[Network, ...]:
    """Return the addresses of an `ip_list`: entries of (interface, address, …)."""
    found = []
    for entry in entries:
        try:
            found.append(ipaddress.ip_network(str(entry[1])))
        except (ValueError, IndexError, TypeError):
            continue
    return tuple(found)
