"""Who gets which address, and what must be added and removed for it: worked out, nothing done."""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from slapos.node.format import addressing
from slapos.node.format.network_record import NetworkRecord
from slapos.node.format.network_state import ORDER, Address, Interface, Item, Kind, NetworkState
from slapos.node.format.plan import FIRST_ADDRESS, NodePlan, PartitionPlan
from slapos.node.settings import FormatSettings
from slapos.protocol.errors import InvalidConfiguration, SlapOSError

#: With this ipv6_prefixshift, what is taken is replaced; with another it is an error.
USUAL_SHIFT = 16
#: The kernel's limit for the name of an interface.
LONGEST_NAME = 15

Value = TypeVar("Value")
Text = Mapping[str, str]


class AddressTaken(SlapOSError):
    """An address, network or interface name of a partition is in use by something else."""

    code = "address_taken"


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """The node with its addresses, what must be on interfaces, and who was given what."""

    node: NodePlan
    wanted: tuple[Item, ...]
    assigned: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is to be removed and added, in this order; `ours` is what format added, afterwards."""

    remove: tuple[Item, ...]
    add: tuple[Item, ...]
    ours: frozenset[Item]


def plan_network(
    settings: FormatSettings, plan: NodePlan, state: NetworkState, record: NetworkRecord
) -> NetworkPlan:
    """Give each partition of `plan` its addresses; those in the record are kept where they fit.

    Raises InvalidConfiguration, AddressTaken.
    """
    return _Planning(settings, plan, state, record).result()


def work_out(wanted: Sequence[Item], state: NetworkState, added: frozenset[Item]) -> Changes:
    """Return the changes from `state` to `wanted`; only what format `added` is ever removed."""
    ours = {item for item in added if state.has(item)}
    remove = ours - set(wanted)
    add = [item for item in wanted if not _is_there(item, state, ours, remove)]
    return Changes(
        remove=tuple(sorted(remove, key=lambda item: (-ORDER[item.kind], str(item)))),
        add=tuple(sorted(add, key=lambda item: ORDER[item.kind])),
        ours=frozenset((ours - remove) | set(add)),
    )


def _is_there(item: Item, state: NetworkState, ours: set[Item], remove: set[Item]) -> bool:
    if state.has(item):
        return not (item in ours and item.interface in state.links and item.kind in _TAPS) or (
            state.links[item.interface].up
        )
    if item.kind != Kind.ADDRESS:
        return False
    # The machine's own, with another prefix length: it serves, and a second one is refused.
    going = {(gone.interface, gone.network) for gone in remove}
    return any(
        found.interface == item.interface
        and found.address.ip == ipaddress.ip_interface(item.network).ip
        and (found.interface, str(found.address)) not in going
        for found in state.addresses
    )


_TAPS = (Kind.TAP, Kind.TUN)


class _Planning:
    """The settings, the state and the record, looked at together."""

    def __init__(
        self, settings: FormatSettings, plan: NodePlan, state: NetworkState, record: NetworkRecord
    ) -> None:
        self._settings, self._plan, self._state, self._record = settings, plan, state, record
        self._ipv4_interface = settings.interface_name
        self._ipv6_interface = settings.ipv6_interface or settings.interface_name
        for name in (self._ipv4_interface, self._ipv6_interface, settings.tap_gateway_interface):
            if name and name not in state.links:
                raise InvalidConfiguration(
                    f"there is no interface {name}: set interface_name, ipv6_interface and "
                    f"tap_gateway_interface in [slapformat] to some of {', '.join(state.links)}"
                )
        self._own = self._node_address()
        self._prefix = self._own.network
        shift = settings.ipv6_prefixshift
        if len(plan.partitions) * 4 > 1 << max(shift, 0):
            raise InvalidConfiguration(
                f"ipv6_prefixshift = {shift} is too small for {len(plan.partitions)} partitions: "
                "2 to the power of it must be 4 times as many"
            )

    def result(self) -> NetworkPlan:
        """Return the whole plan."""
        settings = self._settings
        roles: dict[str, Mapping[str, str]] = {"ipv4": self._ipv4(), "ipv6": self._ipv6()}
        if settings.partition_has_ipv6_range:
            roles["range"] = self._networks("range", addressing.RANGE, lambda name: "lo")
        if settings.makes_taps and settings.tap_gateway_interface:
            roles["tap_ipv4"] = self._tap_ipv4()
        if settings.makes_taps and settings.tap_ipv6:
            roles["tap_range"] = self._networks(
                "tap_range", addressing.TAP, lambda name: self._partition(name).tap
            )
        if settings.create_tun and settings.tun_ipv6:
            roles["tun_range"] = self._networks("tun_range", addressing.TUN, self._tun_name)
        assigned = {
            partition.reference: {role: given[partition.reference] for role, given in roles.items()}
            for partition in self._plan.partitions
        }
        partitions, wanted = [], []
        if settings.partition_has_ipv6_range:
            wanted.append(Item(Kind.NONLOCAL_BIND))
        for number, partition in enumerate(self._plan.partitions):
            planned, items = self._fill(number, partition, assigned[partition.reference])
            partitions.append(planned)
            wanted += items
        for item in wanted:
            self._check_name(item)
        own = f"{self._own.ip}/{self._own.netmask}"
        return NetworkPlan(
            node=replace(self._plan, address=own, partitions=tuple(partitions)),
            wanted=tuple(wanted),
            assigned=assigned,
        )

    def _node_address(self) -> ipaddress.IPv6Interface:
        given = {values.get("ipv6") for values in self._record.assigned.values()}
        added = {item.network for item in self._record.added if item.kind == Kind.ADDRESS}
        found = [
            present.address
            for present in self._state.addresses
            if present.interface == self._ipv6_interface
            and isinstance(present.address, ipaddress.IPv6Interface)
            and _is_global(present.address.ip)
            and not (present.temporary or present.duplicate)
            and str(present.address) not in added
            and str(present.address.ip) not in given
        ]
        if not found:
            raise InvalidConfiguration(
                f"{self._ipv6_interface} has no IPv6 address of global scope from which those of "
                "the partitions could be made: give it one, or set ipv6_interface in [slapformat] "
                "to the interface that has one"
            )
        before = self._record.node_address
        return min(
            found,
            key=lambda address: (
                not before or ipaddress.IPv6Address(before) not in address.network,
                address.network.prefixlen,
                address.ip,
            ),
        )

    def _kept(
        self, role: str, parse: Callable[[str], Value], fits: Callable[[Value], bool]
    ) -> dict[str, Value]:
        kept: dict[str, Value] = {}
        for partition in self._plan.partitions:
            with suppress(ValueError):
                value = parse(self._record.assigned.get(partition.reference, {}).get(role, ""))
                if fits(value) and value not in kept.values():
                    kept[partition.reference] = value
        return kept

    def _choose(
        self,
        kept: Mapping[str, Value],
        computed: Callable[[int], Value],
        free: Callable[[str, Value], bool],
        *,
        replaced: bool,
    ) -> dict[str, str]:
        """Return for each partition what it keeps, else what is computed for its number.

        With `replaced`, what is taken is replaced by what would be computed for later partitions.
        """
        chosen = {name: value for name, value in kept.items() if free(name, value)}
        used = set(chosen.values())
        amount = len(self._plan.partitions)
        for number, partition in enumerate(self._plan.partitions):
            name = partition.reference
            if name in chosen:
                continue
            first = computed(number)
            others = _values(computed, range(amount, 2 * amount + 10)) if replaced else ()
            value = next(
                (v for v in _chain(first, others) if v not in used and free(name, v)), None
            )
            if value is None:
                raise AddressTaken(
                    f"{first}, which is for {name}, is in use by something else (see 'ip addr' and "
                    "'ip route'): free it there, or choose another ipv4_local_network, "
                    "tap_gateway_interface or ipv6_interface in [slapformat]"
                )
            chosen[name] = value
            used.add(value)
        return {name: str(value) for name, value in chosen.items()}

    def _is_free(self, address: Address, interface: str) -> bool:
        """Tell whether an address is nowhere, or where it should be, and not the node's own."""
        return address != self._own.ip and not any(
            present.interface != interface or present.duplicate
            for present in self._state.at.get(address, ())
        )

    def _ipv4(self) -> Mapping[str, str]:
        pool = self._settings.ipv4_local_network
        if pool is None:
            raise InvalidConfiguration("ipv4_local_network is missing: set it in [slapformat]")

        def computed(number: int) -> ipaddress.IPv4Address:
            if number + FIRST_ADDRESS >= pool.num_addresses - 1:
                raise InvalidConfiguration(f"ipv4_local_network {pool} has too few addresses")
            return pool[number + FIRST_ADDRESS]

        return self._choose(
            self._kept("ipv4", ipaddress.IPv4Address, lambda address: address in pool),
            computed,
            lambda _, address: self._is_free(address, self._ipv4_interface),
            replaced=True,
        )

    def _ipv6(self) -> Mapping[str, str]:
        return self._choose(
            self._kept("ipv6", ipaddress.IPv6Address, lambda address: address in self._prefix),
            lambda number: addressing.partition_address(self._prefix, number),
            lambda _, address: self._is_free(address, self._ipv6_interface),
            replaced=self._settings.ipv6_prefixshift == USUAL_SHIFT,
        )

    def _networks(self, role: str, kind: int, interface: Callable[[str], str]) -> Mapping[str, str]:
        shift, prefix = self._settings.ipv6_prefixshift, self._prefix
        routes = {(item.network, item.interface) for item in self._state.routes}

        def is_free(name: str, network: ipaddress.IPv6Network) -> bool:
            text = str(network)
            return all(n != text or i == interface(name) for n, i in routes)

        return self._choose(
            self._kept(
                role,
                ipaddress.IPv6Network,
                lambda network: (
                    network.prefixlen == prefix.prefixlen + shift and network.subnet_of(prefix)
                ),
            ),
            lambda number: addressing.partition_network(prefix, number, shift, kind),
            is_free,
            replaced=shift == USUAL_SHIFT,
        )

    def _tap_ipv4(self) -> Mapping[str, str]:
        gateway = self._tap_gateway()
        hosts = iter(addressing.tap_addresses(gateway))
        usable = [host for host, _ in zip(hosts, range(2 * len(self._plan.partitions) + 10))]  # noqa: B905

        def computed(number: int) -> ipaddress.IPv4Address:
            if number >= len(usable):
                raise InvalidConfiguration(
                    f"{gateway.network} on {self._settings.tap_gateway_interface} has too few "
                    "addresses for the taps: give that interface a larger network"
                )
            return usable[number]

        return self._choose(
            self._kept(
                "tap_ipv4",
                ipaddress.IPv4Address,
                lambda address: address in gateway.network and address != gateway.ip,
            ),
            computed,
            lambda _, address: self._is_free(address, ""),
            replaced=True,
        )

    def _tap_gateway(self) -> ipaddress.IPv4Interface:
        name = self._settings.tap_gateway_interface
        for present in self._state.addresses:
            if present.interface == name and isinstance(present.address, ipaddress.IPv4Interface):
                return present.address
        raise InvalidConfiguration(f"tap_gateway_interface = {name}: it has no IPv4 address")

    def _partition(self, reference: str) -> PartitionPlan:
        return next(p for p in self._plan.partitions if p.reference == reference)

    def _tun_name(self, reference: str) -> str:
        return f"slaptun{self._plan.partitions.index(self._partition(reference))}"

    def _check_name(self, item: Item) -> None:
        if item.kind not in _TAPS:
            return
        if len(item.interface) > LONGEST_NAME:
            raise InvalidConfiguration(
                f"{item.interface} is too long for an interface ({LONGEST_NAME} letters): "
                "choose a shorter tap_base_name"
            )
        link = self._state.links.get(item.interface)
        if link is not None and link.mode != item.kind:
            raise AddressTaken(
                f"there is an interface {item.interface}, and it is no {item.kind}: "
                "choose another tap_base_name, or remove it"
            )

    def _fill(
        self, number: int, partition: PartitionPlan, given: Mapping[str, str]
    ) -> tuple[PartitionPlan, list[Item]]:
        """Return a partition with its addresses, and what must be on interfaces for it."""
        ipv4 = ipaddress.IPv4Interface(given["ipv4"])
        ipv6 = ipaddress.IPv6Interface(f"{given['ipv6']}/{self._prefix.prefixlen}")
        items = [] if ipv4.is_loopback else [_address(self._ipv4_interface, ipv4)]
        items.append(_address(self._ipv6_interface, ipv6))
        planned = replace(
            partition,
            addresses=tuple(f"{address.ip}/{address.netmask}" for address in (ipv4, ipv6)),
            ipv6_range=given.get("range", ""),
        )
        if planned.ipv6_range:
            items.append(Item(Kind.LOCAL_ROUTE, "lo", planned.ipv6_range))
        user = partition.user if self._settings.alter_user else ""
        if self._settings.makes_taps:
            items.append(Item(Kind.TAP, partition.tap, user=user))
            values, more = self._tap(partition.tap, given)
            planned, items = replace(planned, tap_network=values), items + more
        if self._settings.create_tun:
            name = f"slaptun{number}"
            items.append(Item(Kind.TUN, name, user=user))
            values, more = self._tun(name, number, given)
            planned, items = replace(planned, tun=values), items + more
        return planned, items

    def _tap(self, name: str, given: Mapping[str, str]) -> tuple[Text, list[Item]]:
        values, items = _interface_values(name), []
        if "tap_ipv4" in given:
            gateway = self._tap_gateway()
            items.append(Item(Kind.ROUTE, name, f"{given['tap_ipv4']}/32"))
            values |= {
                "ipv4_addr": given["tap_ipv4"],
                "ipv4_netmask": str(gateway.netmask),
                "ipv4_gateway": str(gateway.ip),
                "ipv4_network": str(gateway.network.network_address),
            }
        if "tap_range" in given:
            network = ipaddress.IPv6Network(given["tap_range"])
            last = ipaddress.IPv6Interface((int(network.broadcast_address), network.prefixlen))
            shift = self._settings.ipv6_prefixshift
            way = addressing.tap_gateway(self._prefix, network, shift)
            items += [
                replace(_address(name, last), bare=True),
                Item(Kind.ROUTE, name, f"{way.ip}/128"),
                Item(Kind.ROUTE, name, str(way.network), via=str(way.ip)),
            ]
            values |= {
                "ipv6_addr": str(last.ip),
                "ipv6_netmask": str(last.netmask),
                "ipv6_gateway": str(way.ip),
                "ipv6_network": str(way),
            }
        return values, items

    def _tun(self, name: str, number: int, given: Mapping[str, str]) -> tuple[Text, list[Item]]:
        ipv4 = addressing.tun_address(number, len(self._plan.partitions))
        items = [_address(name, ipv4)]
        values = _interface_values(name) | {
            "ipv4_addr": str(ipv4.ip),
            "ipv4_netmask": str(ipv4.netmask),
            "ipv4_network": f"{ipv4.ip}/{ipv4.netmask}",
        }
        if "tun_range" in given:
            network = ipaddress.IPv6Network(given["tun_range"])
            first = ipaddress.IPv6Interface((int(network[1]), network.prefixlen))
            items.append(_address(name, first))
            values |= {
                "ipv6_addr": str(first.ip),
                "ipv6_netmask": str(first.netmask),
                "ipv6_network": str(first),
            }
        return values, items


def _address(interface: str, address: Interface) -> Item:
    return Item(Kind.ADDRESS, interface, str(address))


def _interface_values(name: str) -> dict[str, str]:
    """Return what releases look for in a tap or tun; empty where there is none."""
    parts = ("addr", "netmask", "gateway", "network")
    return {"name": name} | {f"{ip}_{part}": "" for ip in ("ipv4", "ipv6") for part in parts}


def _is_global(address: ipaddress.IPv6Address) -> bool:
    return not (
        address.is_link_local
        or address.is_loopback
        or address.is_reserved
        or address.is_multicast
        or address.is_unspecified
    )


def _values(computed: Callable[[int], Value], numbers: Iterable[int]) -> Iterator[Value]:
    with suppress(InvalidConfiguration):  # no more of them
        for number in numbers:
            yield computed(number)


def _chain(first: Value, others: Iterable[Value]) -> Iterator[Value]:
    yield first
    yield from others
