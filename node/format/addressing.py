"""Which addresses the partition with a number gets, out of the networks of its node."""

import ipaddress
from collections.abc import Iterator

from slapos.protocol.errors import InvalidConfiguration

#: Of a node's IPv6 prefix, 0 is the network's own and 1 is left to re6st.
FIRST_PARTITION = 2
#: The networks of tun interfaces are parts of it.
TUN_NETWORK = ipaddress.IPv4Network("172.16.0.0/12")

RANGE, TAP, TUN = 1, 2, 3


def partition_address(prefix: ipaddress.IPv6Network, number: int) -> ipaddress.IPv6Address:
    """Return the address of a partition. Raises InvalidConfiguration when the prefix ends."""
    offset = number + FIRST_PARTITION
    if offset >= prefix.num_addresses:
        raise InvalidConfiguration(
            f"the IPv6 network {prefix} has no address for partition {number}: give the node a "
            "larger one, or fewer partitions"
        )
    return prefix[offset]


def partition_network(
    prefix: ipaddress.IPv6Network, number: int, shift: int, kind: int = RANGE
) -> ipaddress.IPv6Network:
    """Return a network of a partition: its range, or that of its tap or tun (`kind`).

    `shift` bits after the prefix say which; their first two are the kind.
    Raises InvalidConfiguration when there are too few bits.
    """
    length = prefix.prefixlen + shift
    if length >= 128:
        raise InvalidConfiguration(
            f"the IPv6 network {prefix} is too small for networks of {shift} bits more: lower "
            "ipv6_prefixshift, or set partition_has_ipv6_range, tap_ipv6 and tun_ipv6 to false"
        )
    if shift < 2 or number + 1 >= 1 << (shift - 2):
        raise InvalidConfiguration(
            f"ipv6_prefixshift = {shift} leaves no IPv6 network for partition {number}: raise it"
        )
    bits = (kind << (shift - 2)) + number + 1
    base = int(prefix.network_address) | bits << (128 - length)
    return ipaddress.IPv6Network((base, length))


def tap_gateway(
    prefix: ipaddress.IPv6Network, network: ipaddress.IPv6Network, shift: int
) -> ipaddress.IPv6Interface:
    """Return the gateway of a tap, in the network that is routed to it.

    This network has 16 bits more than the node's, as existing releases expect; the bits of a larger
    `shift` are needed to tell the taps apart.
    """
    length = prefix.prefixlen + max(16, shift)
    if length >= 128:
        raise InvalidConfiguration(
            f"the IPv6 network {prefix} is too small for taps: set tap_ipv6 = false"
        )
    last = ipaddress.IPv6Network((int(network.broadcast_address), length), strict=False)
    return ipaddress.IPv6Interface((int(last.network_address) + 1, length))


def tun_address(number: int, amount: int) -> ipaddress.IPv4Interface:
    """Return the IPv4 address of a tun: the first of its part of TUN_NETWORK."""
    length = TUN_NETWORK.prefixlen + max(amount - 1, 0).bit_length()
    if length > 30:
        raise InvalidConfiguration(f"{TUN_NETWORK} is too small for {amount} tuns")
    base = int(TUN_NETWORK.network_address) + (number << (32 - length))
    return ipaddress.IPv4Interface((base + 1, length))


def tap_addresses(gateway: ipaddress.IPv4Interface) -> Iterator[ipaddress.IPv4Address]:
    """Yield what of the gateway interface's network can be given to taps, in order."""
    return (address for address in gateway.network.hosts() if address != gateway.ip)
