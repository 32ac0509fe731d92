"""The firewall: who may reach the partitions of this node, kept in a table of nftables of its own.

Only addresses that are partitions' alone are protected, never the machine's own: nobody can lock
himself out. The rules are replaced as a whole, in one transaction, and only when they have changed.
"""

import hashlib
import ipaddress
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from slapos.node.format.network_record import NetworkRecord, read_record
from slapos.node.isolate.access import (
    AUTHORIZED,
    REJECTED,
    Access,
    InvalidSource,
    Network,
    addresses_in,
    is_restricted,
    sources,
    tree_of,
)
from slapos.node.isolate.ruleset import disjoint, render, version_of
from slapos.node.isolate.tables import kernel_tables
from slapos.node.layout import Layout
from slapos.protocol.errors import NotFound, SlapOSError
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock
from slapos.system.files import write_if_changed
from slapos.system.process_lock import process_lock
from slapos.system.runner import CommandFailed, Runner

logger = logging.getLogger(__name__)

PROGRAM, SYSTEM = "nft", "/usr/sbin:/sbin:/usr/bin:/bin"
#: Seconds that it may take.
TIME = 60.0
#: Seconds after which the addresses of a tree are asked for again though nothing changed here.
AGE = 600.0
LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
#: The machine's own.
OWN = frozenset(map(ipaddress.ip_address, ("127.0.0.1", "::1", "0.0.0.0", "::")))


class FirewallFailed(SlapOSError):
    """The rules could not be set."""

    code = "firewall_failed"


class Firewall:
    """The firewall of one node; without `is_wanted`, what there is of it is removed."""

    def __init__(
        self,
        layout: Layout,
        runner: Runner,
        clock: Clock,
        environment: Mapping[str, str],
        *,
        is_wanted: bool,
        tables: Callable[[], set[str]] = kernel_tables,
    ) -> None:
        """`tables` tells which tables the kernel has."""
        self._tables = tables
        self._layout = layout
        self._runner = runner
        self._clock = clock
        # Where system programs are, whoever calls us.
        self._environment = {**environment, "PATH": f"{environment.get('PATH', '')}:{SYSTEM}"}
        self._is_wanted = is_wanted
        #: The rules as they were last set, and what the master said of trees.
        self._rules = layout.state / "firewall.nft"
        self._known_peers = layout.state / "peers.json"
        digest = hashlib.md5(bytes(layout.instance_root), usedforsecurity=False).hexdigest()
        self.table = f"slapos_{digest[:8]}"
        #: What the master said last, until when its rules hold, and these.
        self._last: tuple[NodeInformation, float, str] | None = None

    def keep(self, known: NodeInformation, client: SlapClient) -> bool:
        """Have the rules be as `known` wants them; return whether they were not.

        Raises SlapOSError, OSError; the rules are then what they were.
        """
        if not self._is_wanted:
            return self.remove()
        self._rules.parent.mkdir(parents=True, exist_ok=True)
        # The agent and a command run by hand may mean the same at the same time.
        with process_lock(self._layout.state / "firewall.lock", patience=TIME):
            return self._bring_about(self._text(known, client))

    def _bring_about(self, text: str) -> bool:
        marker = f"{self.table}_version_{version_of(text)}"
        present = self._tables()
        if {self.table, marker} <= present:
            return False
        stale = {name for name in present if name.startswith(f"{self.table}_version_")}
        script = "".join(f"delete table inet {name}\n" for name in sorted(stale))
        script += f"add table inet {self.table}\ndelete table inet {self.table}\n{text}"
        script += f"table inet {marker} {{ }}\n"
        self._apply(script)
        logger.info("the rules for who may reach the partitions have changed")
        return True

    def remove(self) -> bool:
        """Remove all rules of this node; return whether there were any.

        Raises FirewallFailed, OSError.
        """
        if not self._rules.exists():
            return False
        ours = {
            name
            for name in self._tables()
            if name == self.table or name.startswith(f"{self.table}_version_")
        }
        if ours:
            script = "".join(f"delete table inet {name}\n" for name in sorted(ours))
            self._apply(script)
        self._rules.unlink(missing_ok=True)
        self._known_peers.unlink(missing_ok=True)
        return bool(ours)

    def is_in_force(self) -> bool:
        """Return whether there are rules of this node. Raises OSError."""
        return self.table in self._tables()

    def _text(self, known: NodeInformation, client: SlapClient) -> str:
        """Return the rules; worked out anew when something they come from may have changed."""
        now = self._clock.monotonic()
        if self._last is not None:
            before, until, text = self._last
            if known is before and now < until:
                return text
        accesses, shared = disjoint(self._accesses(known))
        if shared:
            logger.debug(
                "not one partition's alone, so not protected: %s", sorted(map(str, shared))
            )
        peers = self._peers(known, client)
        text = render(
            self.table, accesses, {tree: _addresses(entry) for tree, entry in peers.items()}
        )
        # Where the master could not be asked, the next pass asks again.
        self._last = (known, now + AGE, text) if all(peers.values()) else None
        return text

    def _apply(self, script: str) -> None:
        """Have a script take effect, wholly or not at all. Raises FirewallFailed."""
        write_if_changed(self._rules, script, mode=0o600)
        words = [PROGRAM, "-f", str(self._rules)]
        try:
            self._runner.run(words, cwd=Path("/"), environment=self._environment, timeout=TIME)
        except CommandFailed as error:
            last = error.output.strip().splitlines()[:1]
            raise FirewallFailed(
                f"the rules for who may reach the partitions cannot be set: {error}"
                + (f" ({last[0]})" if last else "")
                + "; install nftables, or set firewall = false in [slapos]"
            ) from error

    def _accesses(self, known: NodeInformation) -> list[Access]:
        record = self._network_record()
        found = []
        for wanted in known.partitions:
            try:
                status = self._layout.partition(wanted.reference).lstat()
            except OSError:
                continue
            if status.st_uid == 0:
                continue
            found.append(_access(wanted, status.st_uid, self._networks(wanted, record)))
        return found

    def _networks(self, wanted: PartitionInformation, record: NetworkRecord) -> tuple[Network, ...]:
        """Return the addresses of a partition that cannot be anybody else's.

        That is what format gave it, and what it has of the loopback network.
        """
        own = set(OWN)
        with suppress(ValueError):
            own.add(ipaddress.ip_address(record.node_address))
        given = []
        for text in record.assigned.get(wanted.reference, {}).values():
            with suppress(ValueError):
                given.append(ipaddress.ip_network(text, strict=False))
        for network in addresses_in(wanted.parameters.get("ip_list") or ()):
            if isinstance(network, ipaddress.IPv4Network) and network.subnet_of(LOOPBACK):
                given.append(network)
        return tuple(network for network in given if not any(address in network for address in own))

    def _network_record(self) -> NetworkRecord:
        try:
            return read_record(self._layout.state / "network.json", "")
        except (SlapOSError, OSError) as error:
            logger.warning("%s", error)
            return NetworkRecord()

    # The addresses of instance trees, on other nodes too: only the master knows them.

    def _peers(self, known: NodeInformation, client: SlapClient) -> dict[str, dict[str, Any]]:
        """Return for each tree what the master said of it, empty where that is not known."""
        remembered = _read(self._known_peers)
        now = self._clock.now().timestamp()
        members: dict[str, list[PartitionInformation]] = {}
        for wanted in known.partitions:
            if not wanted.is_free:
                members.setdefault(tree_of(wanted), []).append(wanted)
        found: dict[str, dict[str, Any]] = {}
        for tree, partitions in members.items():
            stamp = " ".join(sorted(f"{p.reference}@{p.timestamp}" for p in partitions))
            entry = remembered.get(tree, {})
            if entry.get("stamp") != stamp or not 0 <= now - entry.get("asked", 0.0) < AGE:
                entry = self._ask(known.reference, partitions[0], client, stamp, now) or entry
            found[tree] = entry
        if found != remembered:
            self._known_peers.parent.mkdir(parents=True, exist_ok=True)
            write_if_changed(self._known_peers, json.dumps(found, sort_keys=True), mode=0o600)
        return found

    def _ask(
        self, node: str, member: PartitionInformation, client: SlapClient, stamp: str, now: float
    ) -> dict[str, Any] | None:
        """Return what the master says of a tree, None where it cannot be asked."""
        try:
            addresses = client.tree_addresses(node, member.reference)
        except NotFound:
            addresses = []
        except SlapOSError as error:
            logger.warning("the addresses of %s are not known: %s", tree_of(member), error)
            return None
        return {"stamp": stamp, "asked": now, "addresses": sorted(addresses)}


def _access(wanted: PartitionInformation, uid: int, networks: tuple[Network, ...]) -> Access:
    """Return who may reach a partition; nonsense in its order opens nothing."""
    order = wanted.filter or {}
    access = Access(reference=wanted.reference, uid=uid, tree=tree_of(wanted), networks=networks)
    try:
        return replace(
            access,
            is_restricted=is_restricted(order),
            authorized=sources(order, AUTHORIZED),
            rejected=sources(order, REJECTED),
        )
    except InvalidSource:  # told by the step check_sources
        return access


def _addresses(entry: Mapping[str, Any]) -> tuple[Network, ...]:
    return addresses_in(("", text) for text in entry.get("addresses", ()))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
