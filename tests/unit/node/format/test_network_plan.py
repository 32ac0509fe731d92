"""Who gets which address, and what is changed for it: worked out from what netlink would show."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos.node.format import addressing
from slapos.node.format.network_plan import AddressTaken, NetworkPlan, plan_network, work_out
from slapos.node.format.network_record import NetworkRecord, read_record, write_record
from slapos.node.format.network_state import Item, Kind, Link, NetworkState, Present
from slapos.node.format.plan import make_plan
from slapos.node.settings import FormatSettings
from slapos.protocol.errors import InvalidConfiguration

OWN = Present(interface="eth0", address=ipaddress.IPv6Interface("2001:db8::1/48"))


def state(*more: Present) -> NetworkState:
    return NetworkState(links={"lo": Link(index=1), "eth0": Link(index=2)}, addresses=(OWN, *more))


def planned(
    found: NetworkState, record: NetworkRecord | None = None, amount: int = 3, shift: int = 16
) -> NetworkPlan:
    settings = FormatSettings(
        computer_id="node",
        master_url="http://[::1]/",
        software_root=Path("/soft"),
        instance_root=Path("/inst"),
        partition_amount=amount,
        interface_name="eth0",
        ipv4_local_network=ipaddress.IPv4Network("10.0.0.0/24"),
        ipv6_prefixshift=shift,
    )
    return plan_network(settings, make_plan(settings), found, record or NetworkRecord())


def on(interface: str, address: str, *, duplicate: bool = False) -> Present:
    return Present(
        interface=interface, address=ipaddress.ip_interface(address), duplicate=duplicate
    )


@given(
    st.integers(0, 2**128 - 1), st.integers(8, 96), st.integers(8, 24), st.data()
)  # a node, its prefix, the shift
def test_networks_of_partitions_are_in_the_prefix_and_apart(
    base: int, length: int, shift: int, data: st.DataObject
) -> None:
    prefix = ipaddress.IPv6Network((base, length), strict=False)
    numbers = st.integers(0, 2 ** (shift - 2) - 2)
    kinds = st.sampled_from([addressing.RANGE, addressing.TAP, addressing.TUN])
    one, other = (data.draw(st.tuples(numbers, kinds)) for _ in range(2))
    first, second = (
        addressing.partition_network(prefix, number, shift, kind) for number, kind in (one, other)
    )
    assert first.subnet_of(prefix)
    assert first.prefixlen == length + shift
    assert first.overlaps(second) == (one == other)
    assert addressing.partition_address(prefix, one[0]) not in first


@given(st.integers(1, 1000), st.data())
def test_networks_of_tuns_are_apart(amount: int, data: st.DataObject) -> None:
    one, other = (data.draw(st.integers(0, amount - 1)) for _ in range(2))
    first, second = (addressing.tun_address(number, amount).network for number in (one, other))
    assert first.subnet_of(addressing.TUN_NETWORK)
    assert first.overlaps(second) == (one == other)


def test_a_prefix_that_is_too_small_is_an_error() -> None:
    with pytest.raises(InvalidConfiguration, match="too small"):
        addressing.partition_network(ipaddress.IPv6Network("2001:db8::/112"), 0, 16)
    with pytest.raises(InvalidConfiguration, match="no address for partition 2"):
        addressing.partition_address(ipaddress.IPv6Network("2001:db8::/126"), 2)
    with pytest.raises(InvalidConfiguration, match="ipv6_prefixshift = 3"):
        planned(state(), shift=3)


def test_once_all_is_there_nothing_is_to_be_done() -> None:
    first = planned(state())
    changes = work_out(first.wanted, state(), frozenset())
    assert set(changes.add) == set(first.wanted) == changes.ours
    there = NetworkState(
        links=state().links,
        addresses=(
            OWN,
            *(on(i.interface, i.network) for i in first.wanted if i.kind == Kind.ADDRESS),
        ),
        routes=frozenset(i for i in first.wanted if i.kind == Kind.LOCAL_ROUTE),
        nonlocal_bind=True,
    )
    record = NetworkRecord(
        node_address="2001:db8::1", assigned=first.assigned, added=frozenset(first.wanted)
    )
    again = planned(there, record)
    assert again == first
    assert work_out(again.wanted, there, record.added).add == ()
    assert set(work_out((), there, record.added).remove) == set(first.wanted)
    assert work_out((), there, frozenset()).remove == ()


def test_what_another_machine_has_is_replaced_and_removed() -> None:
    twice = on("eth0", "2001:db8::2/48", duplicate=True)
    plan = planned(state(twice), NetworkRecord(assigned={"slappart0": {"ipv6": "2001:db8::2"}}))
    assert plan.assigned["slappart0"]["ipv6"] == "2001:db8::5"
    added = frozenset({Item(Kind.ADDRESS, "eth0", "2001:db8::2/48")})
    assert work_out(plan.wanted, state(twice), added).remove == tuple(added)


def test_with_another_shift_what_is_taken_is_an_error() -> None:
    with pytest.raises(AddressTaken, match="2001:db8::2, which is for slappart0"):
        planned(state(on("lo", "2001:db8::2/128")), shift=12)


def test_what_a_partition_has_is_kept_where_it_fits() -> None:
    before = {"slappart2": {"ipv4": "10.0.0.2", "ipv6": "2001:db8::99", "range": "2001:dead::/64"}}
    plan = planned(state(), NetworkRecord(assigned=before))
    assert plan.assigned["slappart2"] == {
        "ipv4": "10.0.0.2",
        "ipv6": "2001:db8::99",
        "range": "2001:db8:0:4003::/64",
    }
    assert plan.assigned["slappart0"]["ipv4"] == "10.0.0.5"


def test_what_was_added_before_another_boot_is_not_ours(tmp_path: Path) -> None:
    record = NetworkRecord(added=frozenset({Item(Kind.TAP, "tap0")}))
    write_record(tmp_path / "r.json", record, "boot")
    assert read_record(tmp_path / "r.json", "boot") == record
    assert read_record(tmp_path / "r.json", "other").added == frozenset()
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(InvalidConfiguration, match="damaged"):
        read_record(tmp_path / "r.json", "boot")
