"""What a node is to have: worked out from the settings or a definition file, nothing done yet."""

import ipaddress
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from slapos.node.settings import FormatSettings
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.settings import read_configuration

#: The first addresses of a pool are left to the network itself and to the machine.
FIRST_ADDRESS = 2


@dataclass(frozen=True, kw_only=True)
class PartitionPlan:
    """A partition to be: its folder, user, addresses (`ADDRESS/NETMASK` each) and tap interface.

    `tap_network` and `tun` are as in `.slapos-resource`.
    """

    reference: str
    folder: Path
    user: str
    addresses: tuple[str, ...] = ()
    ipv6_range: str = ""
    tap: str = ""
    tap_network: Mapping[str, str] = field(default_factory=dict)
    tun: Mapping[str, str] | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """A node to be."""

    reference: str
    address: str
    software_user: str
    partitions: tuple[PartitionPlan, ...]


def make_plan(settings: FormatSettings) -> NodePlan:
    """Return what the settings ask for. Raises InvalidConfiguration."""
    if settings.partition_amount < 0:
        raise InvalidConfiguration("partition_amount must be 0 or more")
    if settings.input_definition_file is not None:
        return _defined(settings, settings.input_definition_file)
    if settings.ipv4_local_network is None:
        raise InvalidConfiguration(
            "the partitions have no addresses: set ipv4_local_network in [slapformat], such as "
            "127.0.96.0/20, or input_definition_file"
        )
    addresses = _pool_addresses(settings.ipv4_local_network, settings.partition_amount)
    return NodePlan(
        reference=settings.computer_id,
        address="127.0.0.1/255.0.0.0" if settings.ipv4_local_network.is_loopback else "",
        software_user=settings.software_user,
        partitions=tuple(
            replace(_partition(settings, number), addresses=(f"{address}/255.255.255.255",))
            for number, address in enumerate(addresses)
        ),
    )


def _partition(settings: FormatSettings, number: int) -> PartitionPlan:
    reference = f"{settings.partition_base_name}{number}"
    return PartitionPlan(
        reference=reference,
        folder=settings.instance_root / reference,
        user=f"{settings.user_base_name}{number}",
        tap=f"{settings.tap_base_name}{number}" if settings.tap_base_name else "",
    )


def _pool_addresses(network: ipaddress.IPv4Network, amount: int) -> list[str]:
    if network.num_addresses - FIRST_ADDRESS - 1 < amount:
        raise InvalidConfiguration(
            f"ipv4_local_network {network} has too few addresses for {amount} partitions: "
            "choose a larger one"
        )
    return [str(network[FIRST_ADDRESS + number]) for number in range(amount)]


def _defined(settings: FormatSettings, path: Path) -> NodePlan:
    sections = read_configuration(path)
    computer = sections.get("computer", {})
    return NodePlan(
        reference=settings.computer_id,
        address=_address(computer["address"], path) if computer.get("address") else "",
        software_user=computer.get("software_user") or settings.software_user,
        partitions=tuple(
            _defined_partition(settings, number, sections, path)
            for number in range(settings.partition_amount)
        ),
    )


def _defined_partition(
    settings: FormatSettings, number: int, sections: Mapping[str, Mapping[str, str]], path: Path
) -> PartitionPlan:
    name = f"partition_{number}"
    if name not in sections:
        raise InvalidConfiguration(
            f"{path} has no section [{name}], and partition_amount is {settings.partition_amount}"
        )
    section = sections[name]
    plan = _partition(settings, number)
    reference = section.get("pathname") or plan.reference
    if "/" in reference or reference.startswith("."):
        raise InvalidConfiguration(f"pathname = {reference} in [{name}] of {path} is no plain name")
    return replace(
        plan,
        reference=reference,
        folder=settings.instance_root / reference,
        user=section.get("user") or plan.user,
        addresses=tuple(_address(word, path) for word in section.get("address", "").split()),
        ipv6_range=section.get("ipv6_range", ""),
        tap=section.get("network_interface") or plan.tap,
        capabilities=tuple(shlex.split(section.get("capability_list", "").replace(",", " "))),
    )


def _address(text: str, path: Path) -> str:
    """Return `ADDRESS/NETMASK`, whatever of netmask and prefix length was given."""
    try:
        interface = ipaddress.ip_interface(text.strip())
    except ValueError as error:
        # An IPv6 netmask is written as an address, which ipaddress does not take.
        address, _, netmask = text.strip().partition("/")
        try:
            ipaddress.IPv6Address(address)
            ipaddress.IPv6Address(netmask)
        except ValueError:
            raise InvalidConfiguration(f"{text!r} in {path} is no address: {error}") from error
        return f"{address}/{netmask}"
    return f"{interface.ip}/{interface.netmask}"
