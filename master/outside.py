"""Addresses outside that somebody has us speak to, such as those of webhooks and other masters.

Whoever names one could mean our own network (SSRF): so a name is resolved once, what is found is
looked at, and that is what is connected to.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Gives the addresses of a host name, as texts; raises OSError.
Resolve = Callable[[str], Sequence[str]]

#: IPv4 addresses written as IPv6 ones, for translators in the network (RFC 6052).
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """Return whether an address is in one of the networks; without any, whether it is public."""
    meant = _meant(address)
    if networks:
        return any(meant in network for network in networks)
    return meant.is_global and not meant.is_multicast


def resolved(host: str) -> Sequence[str]:
    """Return the addresses of a host name; raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]).partition("%")[0] for _, _, _, _, address in found]


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
