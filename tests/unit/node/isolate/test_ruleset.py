import ipaddress

import pytest

from slapos.node.isolate.access import (
    Access,
    InvalidSource,
    Network,
    addresses_in,
    is_restricted,
    sources,
    tree_of,
)
from slapos.node.isolate.ruleset import disjoint, render, version_of
from slapos.protocol.messages import PartitionInformation


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def access(number: int, tree: str, *texts: str, **more: object) -> Access:
    values: dict[str, object] = {"is_restricted": True, **more}
    return Access(
        reference=f"slappart{number}",
        uid=1000 + number,
        tree=tree,
        networks=networks(*texts),
        **values,  # type: ignore[arg-type]
    )


def chain(text: str, name: str) -> list[str]:
    """Return the rules of a chain."""
    _, _, rest = text.partition(f"chain {name} {{\n")
    return [line.strip() for line in rest.partition("  }\n")[0].splitlines()]


def test_a_tree_reaches_itself_and_nobody_else_of_this_machine() -> None:
    text = render(
        "t",
        [
            access(0, "one", "10.0.0.10", "2001:db8::10"),
            access(1, "one", "10.0.0.11"),
            access(2, "two", "10.0.0.12"),
        ],
        {"one": networks("198.51.100.7")},
    )
    assert "set partition_users { type uid; elements = { 1000, 1001, 1002 }; }" in text
    assert "set tree0_users { type uid; elements = { 1000, 1001 }; }" in text
    assert "elements = { 10.0.0.10/32, 10.0.0.11/32, 198.51.100.7/32 }" in text
    assert chain(text, "near_0_slappart0") == [
        "meta skuid @partition_users meta skuid != @tree0_users reject with icmpx admin-prohibited"
    ]
    assert chain(text, "far_0_slappart0") == [
        "ip saddr @tree0_4 accept",
        "ip6 saddr @tree0_6 accept",
        "reject with icmpx admin-prohibited",
    ]
    assert "2001:db8::10/128 : jump far_0_slappart0" in text


def test_sources_are_authorized_and_rejected_here_by_user_and_from_outside_by_address() -> None:
    text = render(
        "t",
        [
            access(
                0,
                "one",
                "10.0.0.10",
                authorized=networks("10.0.0.12", "2001:db8:1::/48"),
                rejected=networks("10.0.0.11", "192.0.2.0/24"),
            ),
            access(1, "one", "10.0.0.11"),
            access(2, "two", "10.0.0.12"),
        ],
        {},
    )
    reject = "reject with icmpx admin-prohibited"
    assert chain(text, "near_0_slappart0") == [
        f"meta skuid {{ 1001 }} {reject}",
        f"meta skuid @partition_users meta skuid != @tree0_users meta skuid != {{ 1002 }} {reject}",
    ]
    assert chain(text, "far_0_slappart0") == [
        f"ip saddr {{ 10.0.0.11/32, 192.0.2.0/24 }} {reject}",
        "ip saddr @tree0_4 accept",
        "ip saddr { 10.0.0.12/32 } accept",
        "ip6 saddr @tree0_6 accept",
        "ip6 saddr { 2001:db8:1::/48 } accept",
        reject,
    ]


def test_what_is_open_to_all_needs_no_rules_but_for_those_it_rejects() -> None:
    open_to_all = access(0, "one", "10.0.0.10", is_restricted=False)
    assert "jump near_" not in render("t", [open_to_all], {})
    rejecting = access(0, "one", "10.0.0.10", is_restricted=False, rejected=networks("192.0.2.1"))
    assert chain(render("t", [rejecting], {}), "far_0_slappart0") == [
        "ip saddr { 192.0.2.1/32 } reject with icmpx admin-prohibited"
    ]


def test_what_two_partitions_have_is_neithers_own() -> None:
    kept, shared = disjoint(
        [
            access(0, "one", "10.0.0.10", "10.0.0.99", "2001:db8:0:1::/64"),
            access(1, "two", "10.0.0.11", "10.0.0.99"),
            access(2, "two", "2001:db8:0:1::5", "10.0.0.12"),
        ]
    )
    assert [each.networks for each in kept] == [
        networks("10.0.0.10"),
        networks("10.0.0.11"),
        networks("10.0.0.12"),
    ]
    assert shared == set(networks("10.0.0.99", "2001:db8:0:1::/64", "2001:db8:0:1::5"))


def test_an_address_within_its_own_range_is_no_conflict() -> None:
    kept, shared = disjoint([access(0, "one", "2001:db8::/64", "2001:db8::5")])
    assert kept[0].networks == networks("2001:db8::/64")
    assert not shared


def test_a_name_that_rules_cannot_have_is_changed() -> None:
    odd = Access(reference="a-b.c d}", uid=5, tree='x"', networks=networks("10.0.0.1"))
    text = render("t", [odd], {})
    assert "chain far_0_a_b_c_d_ {" in text
    assert 'x"' not in text


def test_the_same_is_the_same_whatever_order_it_comes_in() -> None:
    all_of_them = [access(n, f"tree {n % 2}", f"10.0.0.{n}") for n in range(20)]
    text = render("t", all_of_them, {})
    assert render("t", all_of_them[::-1], {}) == text
    assert version_of(text) != version_of(render("t", all_of_them[1:], {}))


@pytest.mark.parametrize(
    "order",
    [
        {"fw_authorized_sources": "10.0.0.1 example.com"},
        {"fw_authorized_sources": "10.0.0.0/33"},
        {"fw_authorized_sources": "::1; }"},
    ],
)
def test_nonsense_as_a_source_is_refused_with_its_key(order: dict[str, str]) -> None:
    with pytest.raises(InvalidSource, match="fw_authorized_sources has '"):
        sources(order, "fw_authorized_sources")


def test_words_of_an_order() -> None:
    assert is_restricted({})
    assert is_restricted({"fw_restricted_access": "on"})
    assert not is_restricted({"fw_restricted_access": "off"})
    with pytest.raises(InvalidSource, match="fw_restricted_access = 'maybe'"):
        is_restricted({"fw_restricted_access": "maybe"})
    assert sources({"x": "10.0.0.1, 10.1.0.0/16 ::1"}, "x") == networks(
        "10.0.0.1", "10.1.0.0/16", "::1"
    )


def test_trees_and_addresses_from_what_the_master_says() -> None:
    one = PartitionInformation(
        node="n", reference="slappart0", parameters={"root_instance_title": "shop"}
    )
    assert tree_of(one) == "tree shop"
    assert tree_of(PartitionInformation(node="n", reference="p")) == "partition p"
    assert addresses_in([("lo", "10.0.0.1"), ("lo",), ("lo", "nonsense"), 5]) == networks(
        "10.0.0.1"
    )
