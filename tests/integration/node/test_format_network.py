"""`slapos node format` on interfaces: in a network namespace of each test's own."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.protocol.marshal import loads
from tests.integration.node.world import IS_ROOT, MAIN, World

NEW_NETWORK = 0x40000000
PREFIX = "2001:db8:7"
#: A process that stays in a network namespace of its own; `ready` says that it is there.
HOLD = f"""
import ctypes, sys
if ctypes.CDLL(None, use_errno=True).unshare({NEW_NETWORK}):
    sys.exit("no network namespaces")
print("ready", flush=True)
sys.stdin.read()
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not IS_ROOT, reason="only root changes interfaces"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this kernel has no tun and tap"),
]


class Namespace:
    """A network of its own for programs: nothing in it, and no way out."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._descriptor)

    def enter(self) -> None:
        if ctypes.CDLL(None).setns(self._descriptor, NEW_NETWORK):
            raise OSError("cannot enter the network namespace")

    def python(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
            preexec_fn=self.enter,
        )

    def ip(self, *words: str) -> list[dict[str, object]]:
        """Run `ip -json`."""
        answer = subprocess.run(
            ["ip", "-json", *words],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=self.enter,
        )
        assert answer.returncode == 0, (words, answer.stderr)
        found: list[dict[str, object]] = json.loads(answer.stdout or "[]")
        return found

    def everything(self) -> list[str]:
        """Return all that is on interfaces, in some order, without what the kernel counts."""
        found: list[object] = []
        for words in (("addr",), ("-4", "route", "show", "table", "all")):
            found += self.ip(*words)
        for route in self.ip("-6", "route", "show", "table", "all"):
            # What the kernel makes itself, for link-local addresses, comes with time.
            if not str(route["dst"]).startswith(("fe80:", "ff00:", "multicast")):
                found.append(route)
        bind = Path("/proc/sys/net/ipv6/ip_nonlocal_bind")
        found.append(self.python(f"print(open({str(bind)!r}).read())").stdout.strip())
        return sorted(map(_steady, found))

    def can_bind(self, address: str) -> bool:
        family = "AF_INET6" if ":" in address else "AF_INET"
        code = f"import socket,sys; s=socket.socket(socket.{family}); s.bind((sys.argv[1], 0))"
        return self.python(code, address).returncode == 0


def _steady(value: object) -> str:
    """Return a thing as text without link-local addresses and what tells states of a check."""
    if isinstance(value, dict) and "addr_info" in value:
        addresses = [
            {name: a[name] for name in ("family", "local", "prefixlen")}
            for a in value["addr_info"]
            if a["scope"] != "link"
        ]
        addresses.sort(key=str)
        return str([value["ifname"], addresses])
    return str(value)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip("this machine makes no network namespaces")
        made = Namespace(holder.pid)
        try:
            made.ip("link", "set", "lo", "up")
            _dummy(made, "net0")
            made.ip("addr", "add", f"{PREFIX}::1/48", "dev", "net0", "nodad")
            made.ip("addr", "add", "192.0.2.1/24", "dev", "net0")
            yield made
        finally:
            made.close()
            holder.communicate()


def _dummy(namespace: Namespace, name: str) -> None:
    """Have an interface that leads nowhere, of whichever kind the kernel can make."""
    for kind in (("dummy",), ("veth", "peer", "name", f"{name}far")):
        try:
            namespace.ip("link", "add", name, "type", *kind)
        except AssertionError:
            continue
        namespace.ip("link", "set", name, "up")
        if kind[0] == "veth":
            namespace.ip("link", "set", f"{name}far", "up")
        return
    pytest.skip("this kernel has neither dummy nor veth interfaces")


def run(
    world: World, namespace: Namespace, *words: str, **slapformat: str
) -> subprocess.CompletedProcess[str]:
    settings = {"interface_name": "net0", "ipv4_local_network": "10.47.0.0/16", **slapformat}
    world.configure(slapformat=settings)
    # The master is not in the namespace: it cannot be told, which is status 2.
    given = ("node", "format", "--cfg", str(world.configuration), "--now", *words)
    return namespace.python(MAIN, *given)


def resource(world: World, reference: str = "slappart0") -> dict[str, object]:
    found: dict[str, object] = json.loads(
        (world.partition(reference) / ".slapos-resource").read_text()
    )
    return found


ALL = {"tap_base_name": "slaptap", "create_tun": "true", "tap_gateway_interface": "net0"}


def test_partitions_get_addresses_that_a_process_can_bind(
    world: World, namespace: Namespace
) -> None:
    answer = run(world, namespace)
    assert answer.returncode == 2, answer.stdout
    for number in (0, 2):
        assert namespace.can_bind(f"10.47.0.{number + 2}")
        assert namespace.can_bind(f"{PREFIX}::{number + 2}")
        assert namespace.can_bind(f"{PREFIX}:{0x4001 + number:x}::5")
    assert resource(world, "slappart1")["address_list"] == [
        {"addr": "10.47.0.3", "netmask": "255.255.255.255"},
        {"addr": f"{PREFIX}::3", "netmask": "ffff:ffff:ffff::"},
    ]
    assert resource(world)["ipv6_range"] == {
        "addr": f"{PREFIX}:4001::",
        "netmask": "ffff:ffff:ffff:ffff::",
        "network": f"{PREFIX}:4001::/64",
        "prefixlen": 64,
    }


def test_taps_and_tuns_are_made_up_and_described(world: World, namespace: Namespace) -> None:
    answer = run(world, namespace, **ALL)
    assert answer.returncode == 2, answer.stdout
    assert resource(world, "slappart1")["tap"] == {
        "name": "slaptap1",
        "ipv4_addr": "192.0.2.3",
        "ipv4_gateway": "192.0.2.1",
        "ipv4_netmask": "255.255.255.0",
        "ipv4_network": "192.0.2.0",
        "ipv6_addr": f"{PREFIX}:8002:ffff:ffff:ffff:ffff",
        "ipv6_gateway": f"{PREFIX}:8002::1",
        "ipv6_netmask": "ffff:ffff:ffff:ffff::",
        "ipv6_network": f"{PREFIX}:8002::1/64",
    }
    assert resource(world, "slappart1")["tun"] == {
        "name": "slaptun1",
        "ipv4_addr": "172.20.0.1",
        "ipv4_gateway": "",
        "ipv4_netmask": "255.252.0.0",
        "ipv4_network": "172.20.0.1/255.252.0.0",
        "ipv6_addr": f"{PREFIX}:c002::1",
        "ipv6_gateway": "",
        "ipv6_netmask": "ffff:ffff:ffff:ffff::",
        "ipv6_network": f"{PREFIX}:c002::1/64",
    }
    [link] = namespace.ip("link", "show", "slaptap1")
    assert "UP" in str(link["flags"])
    [route] = namespace.ip("route", "show", "192.0.2.3")
    assert route["dev"] == "slaptap1"
    [route] = namespace.ip("-6", "route", "show", f"{PREFIX}:8002::/64")
    assert (route["dev"], route["gateway"]) == ("slaptap1", f"{PREFIX}:8002::1")


def test_a_second_time_changes_nothing_and_undo_leaves_what_was_there_before(
    world: World, namespace: Namespace
) -> None:
    before = namespace.everything()
    run(world, namespace, **ALL)
    formatted = namespace.everything()
    assert formatted != before
    again = run(world, namespace, **ALL)
    assert "adding" not in again.stdout
    assert "removing" not in again.stdout
    assert namespace.everything() == formatted
    undone = run(world, namespace, "--undo", **ALL)
    assert undone.returncode == 0, undone.stdout
    assert "things were removed" in undone.stdout
    assert namespace.everything() == before
    assert "nothing is on interfaces" in run(world, namespace, "--undo", **ALL).stdout


def test_a_dry_run_says_all_and_does_nothing(world: World, namespace: Namespace) -> None:
    before = namespace.everything()
    answer = run(world, namespace, "--dry-run", **ALL)
    assert answer.returncode == 0, answer.stdout
    assert f"would add address {PREFIX}::2/48 on net0\n" in answer.stdout
    assert "would add tap slaptap2 of root\n" in answer.stdout
    assert f"would add local route {PREFIX}:4001::/64 on lo\n" in answer.stdout
    assert namespace.everything() == before
    assert not (world.root / "inst" / "var" / "slapgrid" / "network.json").exists()


def test_undo_takes_nothing_that_was_there_before(world: World, namespace: Namespace) -> None:
    # Without a check for duplicates, whose end would bring a route after `before` was noted.
    namespace.ip("addr", "add", f"{PREFIX}::3/48", "dev", "net0", "nodad")
    namespace.ip("tuntap", "add", "dev", "slaptap0", "mode", "tap")
    before = namespace.everything()
    run(world, namespace, **ALL)
    run(world, namespace, "--undo", **ALL)
    # Format set the tap to nothing and gave it nothing that stays.
    assert namespace.everything() == before


def test_an_address_that_is_elsewhere_is_replaced_and_the_other_stays(
    world: World, namespace: Namespace
) -> None:
    namespace.ip("addr", "add", "10.47.0.2/32", "dev", "lo")
    namespace.ip("addr", "add", f"{PREFIX}::2/128", "dev", "lo")
    assert run(world, namespace).returncode == 2
    assert resource(world)["address_list"] == [
        {"addr": "10.47.0.5", "netmask": "255.255.255.255"},
        {"addr": f"{PREFIX}::5", "netmask": "ffff:ffff:ffff::"},
    ]
    # It is kept when the other one is gone, and when there are more partitions.
    namespace.ip("addr", "del", f"{PREFIX}::2/128", "dev", "lo")
    run(world, namespace, partition_amount="5")
    assert f"{PREFIX}::5" in str(resource(world)["address_list"])
    assert f"{PREFIX}::6" in str(resource(world, "slappart4")["address_list"])


def test_with_another_shift_a_conflict_is_an_error_that_changes_nothing(
    world: World, namespace: Namespace
) -> None:
    namespace.ip("addr", "add", f"{PREFIX}::2/128", "dev", "lo")
    before = namespace.everything()
    answer = run(world, namespace, ipv6_prefixshift="12")
    assert answer.returncode == 1
    assert f"{PREFIX}::2, which is for slappart0, is in use" in answer.stdout
    assert namespace.everything() == before


def test_what_is_no_longer_wanted_is_removed(world: World, namespace: Namespace) -> None:
    run(world, namespace)
    plain = namespace.everything()
    run(world, namespace, **ALL)
    assert namespace.everything() != plain
    run(world, namespace)
    assert namespace.everything() == plain


def test_what_a_killed_run_left_is_completed(world: World, namespace: Namespace) -> None:
    run(world, namespace, **ALL)
    whole = namespace.everything()
    namespace.ip("link", "set", "slaptap1", "down")
    namespace.ip("link", "del", "slaptun0")
    namespace.ip("addr", "del", f"{PREFIX}::3/48", "dev", "net0")
    assert namespace.everything() != whole
    run(world, namespace, **ALL)
    assert namespace.everything() == whole


def test_an_interface_without_ipv6_is_told_of(world: World, namespace: Namespace) -> None:
    answer = run(world, namespace, ipv6_interface="lo")
    assert answer.returncode == 1
    assert "lo has no IPv6 address of global scope" in answer.stdout
    answer = run(world, namespace, interface_name="nothere")
    assert answer.returncode == 1
    assert "there is no interface nothere" in answer.stdout


def test_the_master_is_told_of_the_interface(world: World, namespace: Namespace) -> None:
    written = world.root / "node.xml"
    run(world, namespace, "--computer_xml", str(written), **ALL)
    document = loads(written.read_bytes())
    assert document["address"] == f"{PREFIX}::1"
    assert document["netmask"] == "ffff:ffff:ffff::"
    assert document["interface"] == {
        "name": "net0",
        "ipv4_local_network": "10.47.0.0/16",
        "ipv6_interface": "net0",
        "ipv6_prefixshift": 16,
    }
    assert document["partition_list"][0]["tap"]["ipv4_addr"] == "192.0.2.2"


def test_an_address_that_another_machine_has_is_replaced(
    world: World, namespace: Namespace
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        other = Namespace(holder.pid)
        try:
            try:
                namespace.ip(
                    *("link", "add", "net1", "type", "veth", "peer", "name", "far"),
                    *("netns", str(holder.pid)),
                )
            except AssertionError:
                pytest.skip("this kernel has no veth interfaces")
            namespace.ip("link", "set", "net1", "up")
            other.ip("link", "set", "far", "up")
            other.ip("addr", "add", "2001:db8:9::2/48", "dev", "far", "nodad")
            namespace.ip("addr", "add", "2001:db8:9::1/48", "dev", "net1", "nodad")
            answer = run(world, namespace, ipv6_interface="net1")
            assert answer.returncode == 2, answer.stdout
            assert "other machines have 2001:db8:9::2\n" in answer.stdout
            assert "2001:db8:9::5" in str(resource(world)["address_list"])
            assert "2001:db8:9::2/48" not in str(namespace.ip("addr", "show", "dev", "net1"))
        finally:
            other.close()
            holder.communicate()
