"""Who reaches whom: three partitions on a node, and another machine, in network namespaces."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from slapos.node.assembly import make_doors
from slapos.node.format.network_record import NetworkRecord, write_record
from slapos.node.instantiate.process import InstanceOptions
from slapos.node.isolate.firewall import Firewall, FirewallFailed
from slapos.node.layout import Layout
from slapos.node.outcome import ExitStatus
from slapos.node.passes import instance_pass
from slapos.node.settings import read_node_settings
from slapos.protocol.errors import MasterUnreachable
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from slapos.system.runner import CommandFailed, ProcessLimits, Result, SystemRunner, User
from tests.fakes import FakeClock, FakeRunner
from tests.integration.node.world import IS_ROOT, World

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not IS_ROOT, reason="only root changes interfaces and rules"),
    pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/sbin") is None, reason="no nftables"),
]

#: What a partition has: an address of each kind that the node assigned, and one of loopback.
FOUR, SIX, LOOP, RANGE = "10.9.0.{}", "2001:db8:9::{}", "127.9.0.{}", "2001:db8:9:{}::"
NODE = ("10.9.0.1", "2001:db8:9::1")
#: The users of the partitions, and one that is no partition's.
USERS, OTHER_USER = {10: 54010, 11: 54011, 12: 54012}, 54099
#: Another machine's addresses: a stranger, one of the tree, one that was authorized.
STRANGER, RELATIVE, GUEST = 200, 201, 202

SERVE = """
import selectors, socket, sys
chooser = selectors.DefaultSelector()
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, 8080))
    listening.listen(50)
    chooser.register(listening, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in chooser.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(b"hello")
        connection.close()
"""
#: Asks from each source for what is at each address; prints which pairs were answered.
ASK = """
import json, os, socket, sys
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
found = []
for source, address in json.loads(sys.argv[2]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as asking:
        asking.settimeout(5)
        try:
            if source:
                asking.bind((source, 0))
            asking.connect((address, 8080))
            found.append(asking.recv(5) == b"hello")
        except TimeoutError:
            found.append("in vain")
        except OSError:
            found.append(False)
print(json.dumps(found))
"""


TABLES = "from slapos.node.isolate.tables import *; print(*kernel_tables())"


class Master:
    """What knows the addresses of a tree; counts how often it is asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0
        self.is_away = False

    def tree_addresses(self, node: str, partition: str) -> list[str]:
        self.asked += 1
        if self.is_away:
            raise MasterUnreachable("it is away")
        return self.addresses if partition in ("slappart10", "slappart11") else []


@dataclass
class NamespaceRunner:
    """Runs programs in a network namespace, and notes them."""

    pid: int
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        timeout: float | None = None,
        user: User | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
        limits: ProcessLimits | None = None,
    ) -> Result:
        self.ran.append(tuple(argv))
        words = [*inside(self.pid), *argv]
        return SystemRunner().run(words, cwd=cwd, environment=environment, timeout=timeout)

    def changes(self) -> int:
        return sum("-f" in words for words in self.ran)


def tables(pid: int) -> set[str]:
    """Return what is there of the family `inet` in a namespace."""
    answer = subprocess.run(
        [*inside(pid), sys.executable, "-c", TABLES], check=True, capture_output=True, text=True
    )
    return set(answer.stdout.split())


def inside(pid: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]


def ip(pid: int, *words: str) -> None:
    subprocess.run([*inside(pid), "ip", *words], check=True, capture_output=True)


@contextmanager
def new_namespace() -> Iterator[int]:
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip("this machine makes no network namespaces")
        try:
            ip(holder.pid, "link", "set", "lo", "up")
            yield holder.pid
        finally:
            holder.communicate()


@dataclass
class Place:
    """A node with three partitions, of which two are of one tree, and another machine."""

    layout: Layout
    node: int
    outside: int
    runner: NamespaceRunner
    clock: FakeClock
    master: Master
    partitions: dict[int, PartitionInformation]

    def firewall(self, *, is_wanted: bool = True) -> Firewall:
        return Firewall(
            self.layout,
            self.runner,
            self.clock,
            {"PATH": os.environ["PATH"]},
            is_wanted=is_wanted,
            tables=lambda: tables(self.node),
        )

    def keep(self) -> bool:
        known = NodeInformation(reference="node", partitions=tuple(self.partitions.values()))
        return self.firewall().keep(known, cast(SlapClient, self.master))

    def order(self, number: int, **words: str) -> None:
        self.partitions[number] = replace(self.partitions[number], filter=words)

    def ask(self, *asked: tuple[str, str], uid: int = 0, pid: int | None = None) -> list[Any]:
        answer = subprocess.run(
            [*inside(pid or self.node), sys.executable, "-c", ASK, str(uid), json.dumps(asked)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return cast(list[Any], json.loads(answer.stdout))

    def reached_by(self, uid: int, number: int) -> set[Any]:
        """Return what comes of a user of the node asking at the addresses of a partition."""
        texts = [form.format(number) for form in (FOUR, SIX, LOOP)] + [RANGE.format(number) + "7"]
        return set(self.ask(*(("", text) for text in texts), uid=uid))

    def reached_from(self, source: int, number: int) -> set[Any]:
        """Return what comes of another machine's address asking there."""
        return set(
            self.ask(
                *((form.format(source), form.format(number)) for form in (FOUR, SIX)),
                pid=self.outside,
            )
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    layout = Layout(tmp_path / "soft", tmp_path / "inst")
    partitions, assigned = {}, {}
    for number, uid in USERS.items():
        reference = f"slappart{number}"
        layout.partition(reference).mkdir(parents=True)
        os.chown(layout.partition(reference), uid, uid)
        partitions[number] = PartitionInformation(
            node="node",
            reference=reference,
            state=InstanceState.STARTED,
            software_url="http://example.com/software.cfg",
            parameters={
                "timestamp": "1",
                "root_instance_title": "other" if number == 12 else "shop",
                "ip_list": [("", LOOP.format(number)), ("", NODE[0]), ("", "127.0.0.1")],
            },
        )
        assigned[reference] = {
            "ipv4": FOUR.format(number),
            "ipv6": SIX.format(number),
            "range": RANGE.format(number) + "/64",
        }
    record = NetworkRecord(node_address=NODE[1], assigned=assigned)
    write_record(layout.state / "network.json", record, "boot")
    with new_namespace() as node, new_namespace() as outside:
        ip(
            node,
            "link",
            "add",
            "near",
            "type",
            "veth",
            "peer",
            "name",
            "far",
            "netns",
            str(outside),
        )
        own = [*(FOUR.format(n) for n in (1, *USERS)), *(SIX.format(n) for n in (1, *USERS))]
        far = [form.format(n) for form in (FOUR, SIX) for n in (STRANGER, RELATIVE, GUEST)]
        for pid, name, addresses in ((node, "near", own), (outside, "far", far)):
            for address in addresses:
                nodad = ("nodad",) if ":" in address else ()
                length = "64" if ":" in address else "24"
                ip(pid, "addr", "add", f"{address}/{length}", "dev", name, *nodad)
            ip(pid, "link", "set", name, "up")
        for number in USERS:
            ip(node, "-6", "route", "add", "local", f"{RANGE.format(number)}/64", "dev", "lo")
        here = [form.format(n) for form in (FOUR, SIX, LOOP) for n in USERS]
        here += [f"{RANGE.format(number)}7" for number in USERS] + list(NODE)
        serve = [sys.executable, "-c", SERVE]
        free = ["sysctl", "-qw", "net.ipv6.ip_nonlocal_bind=1"]
        subprocess.run([*inside(node), *free], check=True)
        with (
            subprocess.Popen(
                [*inside(node), *serve, *here], stdout=subprocess.PIPE, text=True
            ) as server,
            subprocess.Popen(
                [*inside(outside), *serve, FOUR.format(STRANGER)], stdout=subprocess.PIPE, text=True
            ) as other,
        ):
            for program in (server, other):
                assert program.stdout is not None
                assert program.stdout.readline() == "ready\n"
            try:
                yield Place(
                    layout=layout,
                    node=node,
                    outside=outside,
                    runner=NamespaceRunner(node),
                    clock=FakeClock(),
                    master=Master(FOUR.format(RELATIVE), SIX.format(RELATIVE)),
                    partitions=partitions,
                )
            finally:
                server.kill()
                other.kill()


def test_a_tree_reaches_itself_and_strangers_do_not(place: Place) -> None:
    assert place.reached_by(USERS[12], 10) == {True}
    assert place.reached_from(STRANGER, 10) == {True}
    assert place.keep()
    # On this machine: by the user.
    assert place.reached_by(USERS[10], 10) == {True}
    assert place.reached_by(USERS[11], 10) == {True}
    assert place.reached_by(USERS[12], 10) == {False}
    assert place.reached_by(USERS[10], 12) == {False}
    # From another one: by the address.
    assert place.reached_from(STRANGER, 10) == {False}
    assert place.reached_from(RELATIVE, 10) == {True}
    assert place.reached_from(RELATIVE, 12) == {False}


def test_an_operator_is_never_locked_out(place: Place) -> None:
    place.keep()
    assert place.reached_by(0, 10) == {True}
    assert place.reached_by(OTHER_USER, 10) == {True}
    for uid in (0, OTHER_USER, USERS[12]):
        assert place.ask(("", NODE[0]), ("", NODE[1]), uid=uid) == [True, True]
    stranger = ((FOUR.format(STRANGER), NODE[0]), (SIX.format(STRANGER), NODE[1]))
    assert place.ask(*stranger, pid=place.outside) == [True, True]


def test_what_a_partition_asks_outside_is_answered(place: Place) -> None:
    place.keep()
    asked = (FOUR.format(10), FOUR.format(STRANGER))
    assert place.ask(asked, uid=USERS[10]) == [True]


def test_an_order_opens_and_closes(place: Place) -> None:
    place.order(
        10,
        fw_authorized_sources=f"{FOUR.format(GUEST)} {SIX.format(GUEST)} {FOUR.format(12)}",
        fw_rejected_sources=f"{FOUR.format(RELATIVE)} {SIX.format(RELATIVE)}",
    )
    place.keep()
    assert place.reached_from(GUEST, 10) == {True}
    assert place.reached_from(RELATIVE, 10) == {False}
    assert place.reached_from(RELATIVE, 11) == {True}
    assert place.reached_by(USERS[12], 10) == {True}
    place.order(10, fw_restricted_access="off", fw_rejected_sources=FOUR.format(12))
    assert place.keep()
    assert place.reached_from(STRANGER, 10) == {True}
    assert place.reached_by(USERS[11], 10) == {True}
    assert place.reached_by(USERS[12], 10) == {False}


def test_nonsense_in_an_order_opens_nothing_and_hinders_no_other(place: Place) -> None:
    place.order(10, fw_authorized_sources="everybody; }", fw_restricted_access="off")
    place.keep()
    assert place.reached_from(STRANGER, 10) == {False}
    assert place.reached_from(RELATIVE, 11) == {True}


def test_rules_are_set_once_and_again_when_they_changed_or_are_gone(place: Place) -> None:
    assert place.keep()
    assert not place.keep()
    assert place.runner.changes() == 1
    place.order(10, fw_restricted_access="off")
    assert place.keep()
    subprocess.run([*inside(place.node), "nft", "flush", "ruleset"], check=True)
    assert place.keep()
    assert place.runner.changes() == 3
    assert place.reached_by(USERS[10], 12) == {False}


def test_the_master_is_asked_when_something_changed_and_may_be_away(place: Place) -> None:
    place.keep()
    asked = place.master.asked
    assert asked == 2
    place.keep()
    assert place.master.asked == asked
    place.master.is_away = True
    place.clock.advance(3600)
    assert not place.keep()
    assert place.master.asked == 2 * asked
    assert place.reached_from(RELATIVE, 10) == {True}


def test_nothing_is_left_when_it_is_no_longer_wanted(place: Place) -> None:
    place.keep()
    assert place.firewall().is_in_force()
    known = NodeInformation(reference="node", partitions=tuple(place.partitions.values()))
    off = place.firewall(is_wanted=False)
    assert off.keep(known, cast(SlapClient, place.master))
    left = subprocess.run(
        [*inside(place.node), "nft", "list", "ruleset"], check=True, capture_output=True
    )
    assert left.stdout == b""
    ran = len(place.runner.ran)
    assert not off.keep(known, cast(SlapClient, place.master))
    assert len(place.runner.ran) == ran
    assert place.reached_from(STRANGER, 10) == {True}


def test_rules_that_cannot_be_set_leave_those_that_were(place: Place) -> None:
    place.keep()
    without_nft = FakeRunner(error=CommandFailed("nft could not be started"))
    broken = Firewall(
        place.layout,
        without_nft,
        place.clock,
        {},
        is_wanted=True,
        tables=lambda: tables(place.node),
    )
    with pytest.raises(FirewallFailed, match="install nftables, or set firewall = false"):
        broken.keep(NodeInformation(reference="node"), cast(SlapClient, place.master))
    assert place.reached_by(USERS[12], 10) == {False}
    assert not place.keep()


def test_an_instance_pass_has_the_rules_set(world: World) -> None:
    world.want()
    settings = read_node_settings(world.configuration, {"firewall": "true"})
    address = LOOP.format(10)
    wanted = world.master.partitions["slappart0"]
    world.master.partitions["slappart0"] = replace(
        wanted, parameters={**wanted.parameters, "ip_list": [("lo", address)]}
    )
    with new_namespace() as node:
        doors = make_doors(settings)
        firewall = Firewall(
            world.layout,
            NamespaceRunner(node),
            FakeClock(),
            doors.environment,
            is_wanted=True,
            tables=lambda: tables(node),
        )
        instance_pass(replace(doors, firewall=firewall), InstanceOptions())
        rules = subprocess.run(
            [*inside(node), "nft", "list", "table", "inet", firewall.table],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    assert f"{address} : jump far_0_slappart0" in rules


def test_an_order_with_nonsense_is_told_where_there_is_a_firewall(world: World) -> None:
    world.release()
    world.want()
    wanted = world.master.partitions["slappart0"]
    world.master.partitions["slappart0"] = replace(
        wanted, filter={"fw_rejected_sources": "everybody"}
    )
    assert world.run("instance").returncode == 0
    settings = read_node_settings(world.configuration, {"firewall": "true"})
    unset = Firewall(world.layout, FakeRunner(), FakeClock(), {}, is_wanted=False)
    doors = replace(make_doors(settings), firewall=unset)
    assert instance_pass(doors, InstanceOptions(force=True)) is ExitStatus.FAILED
    assert any("fw_rejected_sources has 'everybody'" in text for text in world.master.errors())
