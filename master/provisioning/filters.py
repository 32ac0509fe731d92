"""The filters of an order (SLA): where it may be placed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from slapos.master.nodes.model import CATEGORIES
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.remote_title import came_from_elsewhere
from slapos.master.provisioning.waiting import Refusal, Why

UNIQUE_BY_NETWORK = "unique_by_network"
#: What others go by than who looks for a place: the node's firewall, retention, reallocation.
IGNORED = frozenset(
    {
        "retention_delay",
        "fw_restricted_access",
        "fw_rejected_sources",
        "fw_authorized_sources",
        "reallocate",
    }
)
_SINGLE = ("computer_guid", "instance_guid", "network_guid", "project_guid", "mode", "capability")
KNOWN = IGNORED | CATEGORIES | frozenset(_SINGLE)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is asked of a place; None or nothing where it may be any."""

    node: str | None = None
    host: str | None = None
    network: str | None = None
    project: str | None = None
    capability: str | None = None
    unique_by_network: bool = False
    categories: tuple[tuple[str, str], ...] = ()
    #: Whether it may not be on a remote node: it came from another master itself.
    here_only: bool = False


def filters_of(instance: SoftwareInstance) -> Filters | Refusal:
    """Return what an instance asks of a place, or why nothing can be as it says.

    What another master ordered here is not ordered on from here: so that no tree goes round between
    masters that are each other's remote nodes.
    """
    found = read_filters(instance.filters, shared=instance.shared)
    if isinstance(found, Filters) and came_from_elsewhere(instance.tree.title):
        return replace(found, here_only=True)
    return found


def read_filters(filters: Mapping[str, Any], *, shared: bool) -> Filters | Refusal:
    """Return what the filters of an order say, or why nothing can be as they say.

    A filter without a value asks for nothing.
    """
    told = {name: str(value) for name, value in filters.items() if value not in (None, "")}
    unknown = sorted(told.keys() - KNOWN)
    if unknown:
        return Refusal(
            Why.UNKNOWN_FILTER,
            f"no node can be chosen by the filter {unknown[0]!r}, which is not known; "
            f"known are: {', '.join(sorted(KNOWN))}. Request it again without it",
        )
    if told.get("mode", UNIQUE_BY_NETWORK) != UNIQUE_BY_NETWORK:
        return Refusal(
            Why.UNKNOWN_FILTER,
            f"the filter mode is {told['mode']!r}; it can only be {UNIQUE_BY_NETWORK!r}. "
            "Request it again with that, or without it",
        )
    if "instance_guid" in told and not shared:
        return Refusal(
            Why.UNKNOWN_FILTER,
            "the filter instance_guid names the host of a shared instance, and this one is not "
            "shared; request it again without it",
        )
    return Filters(
        node=told.get("computer_guid"),
        host=told.get("instance_guid"),
        network=told.get("network_guid"),
        project=told.get("project_guid"),
        capability=told.get("capability"),
        unique_by_network="mode" in told,
        categories=tuple(sorted((name, told[name]) for name in told.keys() & CATEGORIES)),
    )
