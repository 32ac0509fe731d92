"""The rules of nftables that keep strangers from the addresses of partitions, as one text.

A packet looks its destination up once, in a map, and then passes the few rules of one partition:
what it costs does not grow with their number. Answers to what a partition asked are let through;
everything else is judged packet by packet, so that a change binds open connections too.
"""

import hashlib
import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from slapos.node.isolate.access import Access, Network

REJECT = "reject with icmpx admin-prohibited"
_SKELETON = """\
table inet {table} {{
  set partition_users {{ type uid; {users} }}
{body}  chain output {{
    type filter hook output priority filter; policy accept;
    ct direction reply accept
    ct state related accept
    ip daddr vmap @near4
    ip6 daddr vmap @near6
  }}
  chain arriving {{
    ct direction reply accept
    ct state related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    ip daddr vmap @far4
    ip6 daddr vmap @far6
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iif lo accept
    jump arriving
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    jump arriving
  }}
}}
"""


def render(table: str, accesses: Sequence[Access], peers: Mapping[str, Sequence[Network]]) -> str:
    """Return the table; `peers` are the addresses of each instance tree, wherever they are.

    The text depends on nothing else, so that equal texts are equal rules.
    """
    body, maps = "", defaultdict[str, list[str]](list)
    inhabitants = defaultdict[str, list[Access]](list)
    for access in accesses:
        inhabitants[access.tree].append(access)
    trees = {tree: number for number, tree in enumerate(sorted(inhabitants))}
    for tree, number in trees.items():
        members = inhabitants[tree]
        networks = [*peers.get(tree, ()), *(net for each in members for net in each.networks)]
        body += f"  set tree{number}_users {{ type uid; {_elements(_users(members))} }}\n"
        for version in (4, 6):
            kind = f"type ipv{version}_addr; flags interval; auto-merge;"
            elements = _elements(_texts(networks, version))
            body += f"  set tree{number}_{version} {{ {kind} {elements} }}\n"
    for number, access in enumerate(sorted(accesses, key=lambda access: access.reference)):
        if not access.is_restricted and not access.rejected:
            continue
        name = f"{number}_{re.sub('[^a-zA-Z0-9]', '_', access.reference)}"
        for side, rules in (
            ("near", _near(access, trees[access.tree], accesses)),
            ("far", _far(access, trees[access.tree])),
        ):
            lines = "".join(f"    {rule}\n" for rule in rules)
            body += f"  chain {side}_{name} {{\n{lines}  }}\n"
            for version in (4, 6):
                maps[f"{side}{version}"] += [
                    f"{network} : jump {side}_{name}"
                    for network in _texts(access.networks, version)
                ]
    for side in ("near", "far"):
        for version in (4, 6):
            kind = f"type ipv{version}_addr : verdict; flags interval;"
            elements = _elements(maps[f"{side}{version}"])
            body += f"  map {side}{version} {{ {kind} {elements} }}\n"
    return _SKELETON.format(table=table, users=_elements(_users(accesses)), body=body)


def disjoint(accesses: Iterable[Access]) -> tuple[list[Access], set[Network]]:
    """Return them without the addresses that more than one partition has, and those.

    What is not one partition's alone cannot be kept for it.
    """
    claims = sorted(
        (
            (network, access.reference)
            for access in accesses
            for network in _collapsed(access.networks)
        ),
        key=lambda claim: (claim[0].version, int(claim[0].network_address), claim[0].prefixlen),
    )
    shared: set[Network] = set()
    widest: tuple[Network, str] | None = None
    for network, reference in claims:
        if widest is not None and _overlap(widest[0], network) and widest[1] != reference:
            shared |= {network, widest[0]}
        if (
            widest is None
            or network.version != widest[0].version
            or int(network.broadcast_address) > int(widest[0].broadcast_address)
        ):
            widest = network, reference
    kept = [
        replace(
            access,
            networks=tuple(n for n in _collapsed(access.networks) if n not in shared),
        )
        for access in accesses
    ]
    return kept, shared


def version_of(text: str) -> str:
    """Return what tells one ruleset from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    """Return networks with none inside another, in order."""
    listed = list(networks)
    if len(listed) < 2:
        return listed
    found: list[Network] = []
    found += ipaddress.collapse_addresses(n for n in listed if isinstance(n, ipaddress.IPv4Network))
    found += ipaddress.collapse_addresses(n for n in listed if isinstance(n, ipaddress.IPv6Network))
    return found


def _near(access: Access, tree: int, accesses: Sequence[Access]) -> Iterable[str]:
    """Yield the rules for what is sent on this machine: there the sender's user is known."""

    def users_at(networks: Sequence[Network]) -> set[int]:
        if not networks:
            return set()
        return {
            other.uid
            for other in accesses
            if any(_overlap(own, given) for own in other.networks for given in networks)
        }

    rejected = users_at(access.rejected) - {access.uid}
    if rejected:
        yield f"meta skuid {_literal(rejected)} {REJECT}"
    if access.is_restricted:
        authorized = users_at(access.authorized)
        others = f" meta skuid != {_literal(authorized)}" if authorized else ""
        yield (f"meta skuid @partition_users meta skuid != @tree{tree}_users{others} {REJECT}")


def _far(access: Access, tree: int) -> Iterable[str]:
    """Yield the rules for what comes from outside: there only its address is known."""
    for version, word in ((4, "ip"), (6, "ip6")):
        if rejected := _texts(_collapsed(access.rejected), version):
            yield f"{word} saddr {_literal(rejected)} {REJECT}"
    if not access.is_restricted:
        return
    for version, word in ((4, "ip"), (6, "ip6")):
        yield f"{word} saddr @tree{tree}_{version} accept"
        if authorized := _texts(_collapsed(access.authorized), version):
            yield f"{word} saddr {_literal(authorized)} accept"
    yield REJECT


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _users(accesses: Iterable[Access]) -> list[str]:
    return [str(uid) for uid in sorted({access.uid for access in accesses})]


def _texts(networks: Iterable[Network], version: int) -> list[str]:
    """Return those of a version, each once."""
    return sorted({str(network) for network in networks if network.version == version})


def _elements(values: Sequence[str]) -> str:
    return f"elements = {_literal(values)};" if values else ""


def _literal(values: Iterable[object]) -> str:
    return "{ " + ", ".join(str(value) for value in sorted(values, key=str)) + " }"
