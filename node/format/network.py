"""Partitions' addresses on real interfaces: given, kept as they are, and taken away again."""

import ipaddress
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from slapos.node.format.accounts import Accounts
from slapos.node.format.netlink import Netlink
from slapos.node.format.network_plan import (
    AddressTaken,
    Changes,
    NetworkPlan,
    plan_network,
    work_out,
)
from slapos.node.format.network_record import NetworkRecord, read_record, write_record
from slapos.node.format.network_state import Item, Kind, NetworkState
from slapos.node.format.plan import NodePlan
from slapos.node.settings import FormatSettings
from slapos.protocol.errors import SlapOSError
from slapos.protocol.marshal import loads
from slapos.system.clock import Clock
from slapos.system.process_lock import process_lock

logger = logging.getLogger(__name__)

BOOT = Path("/proc/sys/kernel/random/boot_id")

#: Seconds that the kernel may take to see whether another machine has an address: 1 to 2 usually.
DUPLICATE_TIME = 5.0
DUPLICATE_POLL = 0.05
#: How often an address that another machine has is replaced by another.
ROUNDS = 3


def check_network(settings: FormatSettings, plan: NodePlan) -> None:
    """See, changing nothing, that the addresses can be given. Raises SlapOSError."""
    with Netlink() as netlink:
        plan_network(settings, plan, netlink.look(), _read(settings))


def prepare_network(
    settings: FormatSettings, plan: NodePlan, accounts: Accounts, clock: Clock
) -> NodePlan:
    """Bring interfaces to what the settings ask for; return the plan with the addresses in it.

    A dry run says what would be changed. Raises SlapOSError.
    """
    with Netlink() as netlink:
        if settings.dry_run:
            state, record = netlink.look(), _read(settings)
            network = plan_network(settings, plan, state, record)
            _tell(work_out(network.wanted, state, record.added))
            return network.node
        with process_lock(_lock(settings)):
            duplicates: list[str] = []
            for _ in range(ROUNDS):
                network, state = _bring_about(settings, plan, netlink, accounts, clock)
                duplicates = _duplicates(network.wanted, state)
                if not duplicates:
                    _warn(network, state, accounts, settings)
                    return network.node
                logger.warning("other machines have %s", ", ".join(duplicates))
    raise AddressTaken(
        f"other machines on the network have {', '.join(duplicates)}: give this node an IPv6 "
        "network of its own, or stop the other node that has the same one"
    )


def undo_network(settings: FormatSettings) -> int:
    """Remove from interfaces what format added, and nothing else; return how many things.

    What partitions were given is kept, for the next time.
    """
    with Netlink() as netlink, process_lock(_lock(settings)):
        record = _read(settings)
        changes = work_out((), netlink.look(), record.added)
        if settings.dry_run:
            _tell(changes)
            return len(changes.remove)
        for item in changes.remove:
            logger.info("removing %s", item)
            netlink.remove(item)
        if record.added:
            write_record(_path(settings), replace(record, added=frozenset()), _boot())
    return len(changes.remove)


def _bring_about(
    settings: FormatSettings, plan: NodePlan, netlink: Netlink, accounts: Accounts, clock: Clock
) -> tuple[NetworkPlan, NetworkState]:
    state, record = netlink.look(), _read(settings)
    network = plan_network(settings, plan, state, record)
    changes = work_out(network.wanted, state, record.added)
    record = NetworkRecord(
        node_address=network.node.address.partition("/")[0],
        assigned=network.assigned,
        added=changes.ours,
    )
    # First written, then done: what is there after a crash is known to be ours.
    planned = replace(record, added=record.added.union(changes.remove))
    write_record(_path(settings), planned, _boot())
    for item in changes.remove:
        logger.info("removing %s", item)
        netlink.remove(item)
    for item in changes.add:
        logger.info("adding %s", item)
        netlink.add(item, _uid(item, accounts))
    write_record(_path(settings), record, _boot())
    return network, _wait(netlink, network.wanted, clock)


def _wait(netlink: Netlink, wanted: tuple[Item, ...], clock: Clock) -> NetworkState:
    """Wait until the kernel knows of each wanted address whether another machine has it."""
    deadline = clock.monotonic() + DUPLICATE_TIME
    names = {(item.interface, item.network) for item in wanted if item.kind == Kind.ADDRESS}
    while True:
        state = netlink.look()
        # Without a carrier nobody can be asked, and the check waits for the cable.
        unsure = any(
            present.tentative and not present.duplicate
            for present in state.addresses
            if (present.interface, str(present.address)) in names
            and state.links[present.interface].carrier
        )
        if not unsure or clock.monotonic() >= deadline:
            return state
        clock.sleep(DUPLICATE_POLL)


def _duplicates(wanted: tuple[Item, ...], state: NetworkState) -> list[str]:
    names = {(item.interface, item.network) for item in wanted if item.kind == Kind.ADDRESS}
    return [
        str(present.address.ip)
        for present in state.addresses
        if present.duplicate and (present.interface, str(present.address)) in names
    ]


def _warn(
    network: NetworkPlan, state: NetworkState, accounts: Accounts, settings: FormatSettings
) -> None:
    for item in network.wanted:
        if item.kind in (Kind.TAP, Kind.TUN):
            owner, wanted = state.links[item.interface].uid or 0, _uid(item, accounts)
            if owner != wanted:
                logger.warning(
                    "%s belongs to user %s and not to %s: remove it and format again, "
                    "when nothing uses it",
                    *(item.interface, owner, item.user or "root"),
                )
    for name in sorted({settings.interface_name, settings.ipv6_interface} - {""}):
        if not (state.links[name].up and state.links[name].carrier):
            logger.warning("%s is down or has no carrier: its addresses are of no use yet", name)


def _uid(item: Item, accounts: Accounts) -> int:
    owner = accounts.owner(item.user) if item.user else None
    return owner[0] if owner is not None else 0


def _tell(changes: Changes) -> None:
    for item in changes.remove:
        logger.info("would remove %s", item)
    for item in changes.add:
        logger.info("would add %s", item)


def _read(settings: FormatSettings) -> NetworkRecord:
    record = read_record(_path(settings), _boot())
    if record.assigned or settings.computer_xml is None:
        return record
    return replace(record, assigned=_assigned_before(settings.computer_xml))


def _assigned_before(path: Path) -> dict[str, Mapping[str, str]]:
    """Return the addresses in a `computer_xml`: a node that slapos.core formatted keeps them."""
    with suppress(OSError, SlapOSError, KeyError, TypeError, ValueError, AttributeError):
        document: dict[str, Any] = loads(path.read_bytes())
        return {
            partition["reference"]: {
                **{
                    f"ipv{ipaddress.ip_address(address['addr']).version}": address["addr"]
                    for address in partition["address_list"]
                },
                "range": (partition.get("ipv6_range") or {}).get("network", ""),
                "tap_ipv4": (partition.get("tap") or {}).get("ipv4_addr", ""),
            }
            for partition in document["partition_list"]
        }
    return {}


def _path(settings: FormatSettings) -> Path:
    return settings.layout.state / "network.json"


def _lock(settings: FormatSettings) -> Path:
    return settings.layout.state / "network.lock"


def _boot() -> str:
    return BOOT.read_text(encoding="ascii").strip()
