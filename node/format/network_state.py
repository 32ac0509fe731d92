"""What is on the interfaces of a machine: as found, and as single things that can be added."""

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Kind(enum.StrEnum):
    """The kinds of things, in the order in which they are added."""

    NONLOCAL_BIND = "nonlocal_bind"
    TAP = "tap"
    TUN = "tun"
    ADDRESS = "address"
    LOCAL_ROUTE = "local_route"
    ROUTE = "route"


ORDER = {kind: number for number, kind in enumerate(Kind)}


@dataclass(frozen=True)
class Item:
    """One thing on an interface.

    `network` is an address with its prefix length, or the destination of a route; `user` owns a
    tap or tun; a `bare` address brings no route of its network with it.
    """

    kind: Kind
    interface: str = ""
    network: str = ""
    via: str = ""
    user: str = field(default="", compare=False)
    bare: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        match self.kind:
            case Kind.NONLOCAL_BIND:
                return "net.ipv6.ip_nonlocal_bind = 1"
            case Kind.TAP | Kind.TUN:
                return f"{self.kind} {self.interface} of {self.user or 'root'}"
            case Kind.ADDRESS:
                return f"address {self.network} on {self.interface}"
            case Kind.LOCAL_ROUTE:
                return f"local route {self.network} on {self.interface}"
            case _:
                via = f" via {self.via}" if self.via else ""
                return f"route {self.network}{via} on {self.interface}"


@dataclass(frozen=True, kw_only=True)
class Link:
    """An interface; `mode` is tap or tun where it is one, and then `uid` is its owner."""

    index: int
    up: bool = True
    carrier: bool = True
    mode: str = ""
    uid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Present:
    """An address that is there; a tentative one is still checked for duplicates."""

    interface: str
    address: Interface
    tentative: bool = False
    duplicate: bool = False
    temporary: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkState:
    """What netlink shows of this machine; `routes` are of the kinds ROUTE and LOCAL_ROUTE."""

    links: Mapping[str, Link]
    addresses: tuple[Present, ...] = ()
    routes: frozenset[Item] = frozenset()
    nonlocal_bind: bool = False

    @cached_property
    def _placed(self) -> frozenset[tuple[str, str]]:
        return frozenset((found.interface, str(found.address)) for found in self.addresses)

    @cached_property
    def at(self) -> Mapping[Address, tuple[Present, ...]]:
        """What is there, by address."""
        found: dict[Address, tuple[Present, ...]] = {}
        for present in self.addresses:
            found[present.address.ip] = (*found.get(present.address.ip, ()), present)
        return found

    def has(self, item: Item) -> bool:
        """Tell whether a thing is there, exactly."""
        if item.kind == Kind.NONLOCAL_BIND:
            return self.nonlocal_bind
        if item.kind in (Kind.TAP, Kind.TUN):
            link = self.links.get(item.interface)
            return link is not None and link.mode == item.kind
        if item.kind == Kind.ADDRESS:
            return (item.interface, item.network) in self._placed
        return item in self.routes
