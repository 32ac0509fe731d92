"""Interfaces, addresses and routes of this machine, by netlink."""

import errno
import ipaddress
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from slapos.node.format.network_state import Item, Kind, Link, NetworkState, Present
from slapos.protocol.errors import SlapOSError

NONLOCAL_BIND = Path("/proc/sys/net/ipv6/ip_nonlocal_bind")

# From linux/if_addr.h, linux/if.h and linux/rtnetlink.h.
TEMPORARY, DUPLICATE, TENTATIVE, NO_PREFIX_ROUTE = 0x01, 0x08, 0x40, 0x200
UP, RUNNING = 0x1, 0x40
UNICAST, LOCAL = 1, 2
MAIN_TABLE, LOCAL_TABLE = 254, 255
TUN_MODES = {1: "tun", 2: "tap"}

#: What says that it is there, or gone, already.
THERE = {errno.EEXIST}
GONE = {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}


class NetworkNotChanged(SlapOSError):
    """The kernel refused a change of an interface."""

    code = "network_not_changed"


class Netlink:
    """A connection with the kernel; a context manager."""

    def __init__(self) -> None:
        self._route = IPRoute()
        self._indexes: dict[str, int] = {}

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._route.close()

    def look(self) -> NetworkState:
        """Return what is there."""
        links: dict[str, Link] = {}
        for message in self._route.get_links():
            links[message.get_attr("IFLA_IFNAME")] = _link(message)
        self._indexes = {name: link.index for name, link in links.items()}
        names = {index: name for name, index in self._indexes.items()}
        return NetworkState(
            links=links,
            addresses=tuple(
                present
                for message in self._route.get_addr()
                if (present := _present(message, names)) is not None
            ),
            routes=frozenset(
                item
                for family in (socket.AF_INET, socket.AF_INET6)
                for message in self._route.get_routes(family=family)
                if (item := _item(message, names)) is not None
            ),
            nonlocal_bind=NONLOCAL_BIND.exists() and NONLOCAL_BIND.read_text().strip() == "1",
        )

    def add(self, item: Item, uid: int) -> None:
        """Add a thing; a tap or tun belongs to `uid`. Raises NetworkNotChanged."""
        try:
            if item.kind in (Kind.TAP, Kind.TUN):
                self._add_tap(item, uid)
            else:
                self._change("add", item)
        except (NetlinkError, OSError) as error:
            if _number(error) not in THERE:
                raise NetworkNotChanged(f"{item} could not be added: {error}") from error

    def remove(self, item: Item) -> None:
        """Remove a thing that was added. Raises NetworkNotChanged."""
        try:
            if item.kind in (Kind.TAP, Kind.TUN):
                self._route.link("del", index=self._indexes[item.interface])
            else:
                self._change("del", item)
        except KeyError:
            return  # went with its interface
        except (NetlinkError, OSError) as error:
            if _number(error) not in GONE:
                raise NetworkNotChanged(f"{item} could not be removed: {error}") from error

    def _add_tap(self, item: Item, uid: int) -> None:
        name = item.interface
        if name not in self._indexes:
            self._route.link("add", ifname=name, kind="tuntap", mode=item.kind.value, uid=uid)
            self._indexes[name] = self._route.link_lookup(ifname=name)[0]
        self._route.link("set", index=self._indexes[name], state="up")

    def _change(self, verb: str, item: Item) -> None:
        if item.kind == Kind.NONLOCAL_BIND:
            NONLOCAL_BIND.write_text("1\n" if verb == "add" else "0\n")
            return
        index = self._indexes[item.interface]
        if item.kind == Kind.ADDRESS:
            address = ipaddress.ip_interface(item.network)
            more: dict[str, Any] = {"flags": NO_PREFIX_ROUTE} if item.bare and verb == "add" else {}
            self._route.addr(
                verb, index=index, address=str(address.ip), prefixlen=address.network.prefixlen,
                **more,
            )  # fmt: skip
            return
        network = ipaddress.ip_network(item.network)
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        more = {"type": "local", "table": LOCAL_TABLE} if item.kind == Kind.LOCAL_ROUTE else {}
        if item.via:
            more["gateway"] = item.via
        self._route.route(verb, family=family, dst=item.network, oif=index, **more)


def _number(error: NetlinkError | OSError) -> int | None:
    number: int | None = error.code if isinstance(error, NetlinkError) else error.errno
    return number


def _link(message: Any) -> Link:
    flags = message["flags"]
    mode, uid = "", None
    information = message.get_attr("IFLA_LINKINFO")
    if information is not None and information.get_attr("IFLA_INFO_KIND") == "tun":
        data = information.get_attr("IFLA_INFO_DATA")
        mode = TUN_MODES.get(data.get_attr("IFLA_TUN_TYPE"), "")
        uid = data.get_attr("IFLA_TUN_OWNER")
    return Link(
        index=message["index"],
        up=bool(flags & UP),
        carrier=bool(flags & RUNNING),
        mode=mode,
        uid=uid,
    )


def _present(message: Any, names: dict[int, str]) -> Present | None:
    # Of a point-to-point interface, IFA_ADDRESS is the other end.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    if text is None or message["index"] not in names:
        return None
    return Present(
        interface=names[message["index"]],
        address=ipaddress.ip_interface(f"{text}/{message['prefixlen']}"),
        tentative=bool(flags & TENTATIVE),
        duplicate=bool(flags & DUPLICATE),
        temporary=bool(flags & TEMPORARY) and message["family"] == socket.AF_INET6,
    )


def _item(message: Any, names: dict[int, str]) -> Item | None:
    table = message.get_attr("RTA_TABLE") or message["table"]
    kind = {(MAIN_TABLE, UNICAST): Kind.ROUTE, (LOCAL_TABLE, LOCAL): Kind.LOCAL_ROUTE}.get(
        (table, message["type"])
    )
    destination, index = message.get_attr("RTA_DST"), message.get_attr("RTA_OIF")
    if kind is None or destination is None or index not in names:
        return None
    with suppress(ValueError):
        return Item(
            kind,
            names[index],
            str(ipaddress.ip_network(f"{destination}/{message['dst_len']}")),
            message.get_attr("RTA_GATEWAY") or "",
        )
    return None
