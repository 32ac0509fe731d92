"""Allocation in the full profile: who is placed where, and why the others are not."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import ProductState, SoftwareInstallation, SupplyNode
from slapos.master.identity.caller import SYSTEM, serve
from slapos.master.identity.model import Project, Tenant
from slapos.master.nodes.model import (
    AllocationScope,
    NodeCategory,
    PartitionCapability,
)
from slapos.master.provisioning import reports
from slapos.protocol.errors import Conflict
from slapos.protocol.states import InstanceState
from tests.fakes import NOON, FakeClock
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import URL
from tests.integration.master.provider import Provider, make_instance_node, where

OTHER = "https://example.org/other.cfg"


@pytest.fixture
def provider(session: Session, clock: FakeClock) -> Provider:
    serve(session, SYSTEM)
    return Provider(session, clock)


def test_an_order_is_placed_at_once_and_its_release_installed(provider: Provider) -> None:
    node = provider.node("COMP-1")
    provider.supply("COMP-1")
    instance = provider.order()
    assert where(instance) == "COMP-1 slappart0"
    assert (instance.waiting_code, instance.waiting_reason, instance.waiting_key) == ("", "", "")
    assert instance.partition is not None
    assert instance.partition.state == "busy"
    found = provider.session.scalars(select(SoftwareInstallation)).all()
    assert [(each.node_id, each.url) for each in found] == [(node.id, URL)]
    assert where(provider.order("other")) == "COMP-1 slappart1"


def test_a_release_is_installed_on_each_node_that_needs_it(provider: Provider) -> None:
    ids = [provider.node(f"COMP-{number}", partitions=1).id for number in range(3)]
    provider.supply("COMP-0", "COMP-1", "COMP-2")
    for title in "abc":
        provider.order(title)
    assert sorted(provider.session.scalars(select(SoftwareInstallation.node_id))) == ids


def test_an_identical_order_changes_nothing(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.supply("COMP-1")
    changed_at = provider.order().changed_at
    provider.clock.advance(60)
    assert provider.order().changed_at == changed_at


def test_a_release_that_no_product_has_is_not_placed(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.supply("COMP-1")
    instance = provider.order(software_url=OTHER)
    assert instance.waiting_code == "no_product"
    assert f"no product of the project PROJ-1 has the release {OTHER}" in instance.waiting_reason


def test_a_type_that_the_product_has_not_is_not_placed(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.supply("COMP-1")
    instance = provider.order(software_type="odd")
    assert instance.waiting_code == "no_product"
    assert "has no type 'odd'; it has: default" in instance.waiting_reason


def test_a_draft_is_not_placed(provider: Provider) -> None:
    provider.node("COMP-1")
    product = add_product(provider.session, state=ProductState.DRAFT)
    add_supply(provider.session, product, ["COMP-1"])
    instance = provider.order()
    assert instance.waiting_code == "no_product"
    assert "which is draft" in instance.waiting_reason


def test_a_product_of_another_project_does_not_count(provider: Provider) -> None:
    provider.session.add(
        Project(id=2, reference="PROJ-2", title="two", owner_id=1, created_at=NOON)
    )
    provider.session.flush()
    provider.node("COMP-1", project_id=2)
    add_supply(provider.session, add_product(provider.session, project_id=2), ["COMP-1"])
    assert provider.order().waiting_code == "no_product"
    assert where(provider.order("there", tenant=Tenant(2, 1))) == "COMP-1 slappart0"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (None, "no supply allows"),
        ({"enabled": False}, "is disabled"),
        ({"customer_id": 2}, "is only for other customers"),
    ],
)
def test_without_a_supply_nothing_is_placed(
    provider: Provider, fields: dict[str, Any] | None, said: str
) -> None:
    provider.node("COMP-1")
    product = add_product(provider.session)
    if fields is not None:
        add_supply(provider.session, product, ["COMP-1"], **fields)
    instance = provider.order()
    assert instance.waiting_code == "no_supply"
    assert said in instance.waiting_reason


def test_a_supply_for_one_customer_comes_first_for_her(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.node("COMP-2")
    product = add_product(provider.session)
    add_supply(provider.session, product, ["COMP-1"])
    add_supply(provider.session, product, ["COMP-2"], title="private", customer_id=2)
    assert where(provider.order(owner=1)) == "COMP-1 slappart0"
    assert where(provider.order(owner=2)) == "COMP-2 slappart0"


@pytest.mark.parametrize("scope", [each for each in AllocationScope if each != "open"])
def test_a_closed_node_takes_nothing(provider: Provider, scope: AllocationScope) -> None:
    provider.node("COMP-1", allocation_scope=scope)
    provider.supply("COMP-1")
    instance = provider.order()
    assert instance.waiting_code == "node_closed"
    assert f"COMP-1 is {scope}" in instance.waiting_reason


def test_full_nodes_are_left_out_until_something_is_free(provider: Provider) -> None:
    provider.node("COMP-1", partitions=1)
    provider.supply("COMP-1")
    first = provider.order()
    second = provider.order("second")
    assert second.waiting_code == "no_free_partition"
    assert not provider.session.scalars(select(SupplyNode.vacant)).one()
    provider.order(state=InstanceState.DESTROYED)
    reports.report_state(provider.session, provider.clock, first, InstanceState.DESTROYED)
    assert provider.session.scalars(select(SupplyNode.vacant)).one()


def test_who_waits_comes_before_who_comes_later(provider: Provider) -> None:
    provider.node("COMP-1", partitions=1)
    provider.supply("COMP-1")
    first = provider.order()
    waiting = provider.order("second")
    provider.order(state=InstanceState.DESTROYED)
    reports.report_state(provider.session, provider.clock, first, InstanceState.DESTROYED)
    third = provider.order("third")
    assert third.waiting_code == "no_free_partition"
    assert third.waiting_key == waiting.waiting_key


def test_a_capacity_bounds_the_weights_on_a_node(provider: Provider) -> None:
    provider.node("COMP-1", partitions=9, capacity=5)
    add_supply(provider.session, add_product(provider.session, weight=2), ["COMP-1"])
    assert where(provider.order("a"))
    assert where(provider.order("b"))
    assert provider.order("c").waiting_code == "no_capacity"


def test_a_node_without_capacity_left_is_passed_by(provider: Provider) -> None:
    provider.node("COMP-1", partitions=9, capacity=0)
    provider.node("COMP-2")
    provider.node("COMP-3", partitions=9, capacity=0)
    provider.supply("COMP-1", "COMP-2", "COMP-3")
    assert where(provider.order()) == "COMP-2 slappart0"


def test_the_filters_choose_the_node(provider: Provider) -> None:
    network = provider.network("NET-1")
    provider.node("COMP-1")
    provider.node("COMP-2", network_id=network.id)
    node = provider.node("COMP-3")
    node.categories = [
        NodeCategory(name="region", value="europe"),
        NodeCategory(name="cpu_core", value="8"),
    ]
    provider.node("COMP-4")
    provider.supply("COMP-1", "COMP-2", "COMP-3", "COMP-4")
    for number, (filters, expected) in enumerate(
        [
            ({"computer_guid": "COMP-1"}, "COMP-1"),
            ({"computer_guid": "COMP-4", "project_guid": "PROJ-1"}, "COMP-4"),
            ({"network_guid": "NET-1"}, "COMP-2"),
            ({"region": "europe", "cpu_core": "8", "retention_delay": "3"}, "COMP-3"),
        ]
    ):
        assert where(provider.order(f"web{number}", filters=filters)).split()[0] == expected


@pytest.mark.parametrize(
    ("filters", "code", "said"),
    [
        ({"computer_guid": "COMP-9"}, "no_node_matches", "computer_guid 'COMP-9'"),
        ({"network_guid": "NET-9"}, "no_node_matches", "network_guid 'NET-9'"),
        ({"region": "mars"}, "no_node_matches", "region 'mars'"),
        ({"project_guid": "PROJ-9"}, "no_node_matches", "ordered in PROJ-1"),
        ({"capability": "gpu"}, "no_node_matches", "has the capability 'gpu'"),
        ({"mode": "unique_by_network"}, "network_taken", "another network"),
        ({"mode": "spread"}, "unknown_filter", "mode is 'spread'"),
        ({"colour": "blue"}, "unknown_filter", "the filter 'colour', which is not known"),
        ({"instance_guid": "SOFTINST-1"}, "unknown_filter", "is not shared"),
    ],
)
def test_what_the_filters_leave_nothing_of_waits_and_says_so(
    provider: Provider, filters: dict[str, str], code: str, said: str
) -> None:
    provider.node("COMP-1")
    provider.supply("COMP-1")
    instance = provider.order(filters=filters)
    assert instance.waiting_code == code
    assert said in instance.waiting_reason


def test_other_filters_give_a_waiting_instance_another_try(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.supply("COMP-1")
    instance = provider.order(filters={"region": "mars"})
    assert not instance.is_placed
    assert where(provider.order(filters={})) == "COMP-1 slappart0"
    assert instance.waiting_code == ""


def test_a_partition_with_capabilities_is_kept_for_those_who_ask(provider: Provider) -> None:
    node = provider.node("COMP-1", partitions=2)
    node.partitions[0].capabilities = [PartitionCapability(name="gpu")]
    provider.supply("COMP-1")
    assert where(provider.order("plain")) == "COMP-1 slappart1"
    assert provider.order("more").waiting_code == "no_free_partition"
    assert where(provider.order("gpu", filters={"capability": "gpu"})) == "COMP-1 slappart0"


def test_each_of_a_tree_may_be_in_another_network(provider: Provider) -> None:
    networks = [provider.network(f"NET-{number}") for number in range(2)]
    for number, network in enumerate([*networks, networks[0], None]):
        provider.node(f"COMP-{number}", network_id=network.id if network else None)
    provider.supply("COMP-0", "COMP-1", "COMP-2", "COMP-3")
    mode = {"mode": "unique_by_network"}
    root = provider.order(filters=mode)
    child = provider.order("child", requester=root, filters=mode)
    assert root.node is not None
    assert child.node is not None
    assert {root.node.network_id, child.node.network_id} == {each.id for each in networks}
    third = provider.order("third", requester=root, filters=mode)
    assert third.waiting_code == "network_taken"


def test_a_release_may_have_to_be_there_before(provider: Provider) -> None:
    provider.node("COMP-1")
    node = provider.node("COMP-2")
    product = add_product(provider.session)
    add_supply(provider.session, product, ["COMP-1", "COMP-2"], installs_by_need=False)
    assert provider.order().waiting_code == "not_installed"
    provider.session.add(SoftwareInstallation(node_id=node.id, url=URL, created_at=NOON))
    provider.session.flush()
    assert where(provider.order("other")) == "COMP-2 slappart0"


def test_a_shared_instance_needs_an_instance_node(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.supply("COMP-1")
    host = provider.order("host")
    shared = provider.order("shared", shared=True)
    assert shared.waiting_code == "no_host"
    make_instance_node(provider.session, host)
    found = provider.order("another", owner=2, shared=True)
    assert found.host is host
    assert found.waiting_code == ""
    wrong = provider.order("third", shared=True, filters={"instance_guid": "SOFTINST-0"})
    assert wrong.waiting_code == "no_host"
    right = provider.order("fourth", shared=True, filters={"instance_guid": host.reference})
    assert right.host is host


def test_a_host_on_a_closed_node_takes_nothing(provider: Provider) -> None:
    node = provider.node("COMP-1")
    provider.supply("COMP-1")
    make_instance_node(provider.session, provider.order("host"))
    node.allocation_scope = AllocationScope.MAINTENANCE
    provider.session.flush()
    assert provider.order("shared", shared=True).waiting_code == "node_closed"


@pytest.mark.parametrize("allowed", [True, False])
def test_a_supply_may_have_instances_share_in_their_own_tree(
    provider: Provider, allowed: bool
) -> None:
    provider.node("COMP-1", partitions=3)
    provider.supply("COMP-1", shared_in_same_tree=allowed)
    root = provider.order()
    provider.order("stranger")
    shared = provider.order("piece", requester=root, shared=True)
    assert (shared.host is root) == allowed
    assert shared.waiting_code == ("" if allowed else "no_host")


@pytest.mark.parametrize("field", ["software_url", "software_type"])
def test_a_request_does_not_change_what_a_root_is(provider: Provider, field: str) -> None:
    provider.node("COMP-1")
    product = add_product(provider.session, urls=(URL, OTHER), types=("default", "other"))
    add_supply(provider.session, product, ["COMP-1"])
    provider.order()
    changed: dict[str, Any] = {field: {"software_url": OTHER, "software_type": "other"}[field]}
    with pytest.raises(Conflict, match="cannot be changed by a request"):
        provider.order(**changed)


def test_a_child_becomes_only_what_is_allowed_on_its_node(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.node("COMP-2", partitions=0)
    provider.supply("COMP-1")
    other = add_product(provider.session, title="other", urls=(OTHER,))
    root = provider.order()
    child = provider.order("child", requester=root)
    with pytest.raises(Conflict, match="no supply allows"):
        provider.order("child", requester=root, software_url=OTHER)
    child.software_url = URL
    add_supply(provider.session, other, ["COMP-1"], title="other")
    assert provider.order("child", requester=root, software_url=OTHER) is child
    urls = provider.session.scalars(select(SoftwareInstallation.url)).all()
    assert sorted(urls) == sorted([URL, OTHER])
