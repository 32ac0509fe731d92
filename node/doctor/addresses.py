"""Check of the partitions' addresses: whether a service could listen on them."""

import errno
import ipaddress
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.node.doctor.finding import Examined
from slapos.node.format.format import RESOURCE
from slapos.system.finding import Finding, ok, problem, warning


def check_addresses(examined: Examined) -> Iterator[Finding]:
    """See that something can be bound to each address that `slapos node format` gave out."""
    usable, untold = 0, []
    for folder in examined.partitions:
        try:
            addresses = addresses_of(folder)
        except (UnsafePath, ValueError, OSError) as error:
            remedy = "run 'slapos node format', which writes it anew"
            yield problem(f"{folder / RESOURCE} cannot be read: {error}", remedy)
            continue
        if not addresses:
            untold.append(folder.name)
        for address in addresses:
            reason = why_unusable(address)
            if not reason:
                usable += 1
                continue
            yield problem(
                f"{folder.name}: nothing can listen on {address}: {reason}",
                f"add the address to an interface ('ip address add {address} dev INTERFACE'), or "
                "format the node with addresses that it has",
            )
    if untold:
        yield warning(f"no addresses are known of {', '.join(untold)}", "run 'slapos node format'")
    if usable or not untold:
        yield ok(f"{usable} addresses of {len(examined.partitions)} partitions can be used")


def addresses_of(folder: Path) -> list[str]:
    """Return the addresses that the partition was given; none when it was not formatted.

    Raises UnsafePath, ValueError.
    """
    content = read_beneath(folder, RESOURCE)
    if content is None:
        return []
    try:
        listed = json.loads(content)["address_list"]
        return [str(ipaddress.ip_address(address["addr"])) for address in listed]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it has no list of addresses") from error


def why_unusable(address: str) -> str:
    """Return why nothing can be bound to an address, empty when something can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.bind((address, 0))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return "no interface of this machine has it"
        return os.strerror(error.errno or 0)
    return ""
