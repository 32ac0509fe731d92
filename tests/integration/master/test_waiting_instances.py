"""Those that wait for a place: they are looked at when something happens, and in which turn."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import SoftwareProduct, SupplyNode
from slapos.master.identity.caller import SYSTEM, serve
from slapos.master.identity.model import Project, Tenant
from slapos.master.nodes.model import AllocationScope
from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.provisioning import lookup, queue
from slapos.master.provisioning.model import SoftwareInstance
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


def work_off(provider: Provider) -> int:
    return provider.work_off(ALLOCATE_INSTANCES)


def placed(provider: Provider) -> list[str]:
    found = select(SoftwareInstance.title).where(SoftwareInstance.waiting_key == "")
    return sorted(provider.session.scalars(found))


def test_who_waits_is_placed_when_a_partition_is_free(provider: Provider) -> None:
    provider.node("COMP-1", partitions=1)
    provider.supply("COMP-1")
    first = provider.order("first")
    second, third = provider.order("second"), provider.order("third")
    assert work_off(provider) == 0
    changed_at = second.changed_at
    provider.remove(first)
    assert work_off(provider) == 1
    assert where(second) == "COMP-1 slappart0"
    assert second.waiting_reason == ""
    assert second.changed_at > changed_at
    assert third.waiting_code == "no_free_partition"


def test_a_requester_is_told_that_its_child_has_a_place(provider: Provider) -> None:
    provider.node("COMP-1", partitions=2)
    provider.supply("COMP-1")
    root, other = provider.order(), provider.order("other")
    provider.order("child", requester=root)
    changed_at = root.changed_at
    provider.remove(other)
    work_off(provider)
    assert root.changed_at > changed_at


def test_the_scope_of_a_node_has_its_waiting_looked_at(provider: Provider) -> None:
    node = provider.node("COMP-1", allocation_scope=AllocationScope.MAINTENANCE)
    provider.supply("COMP-1")
    instance = provider.order()
    node.allocation_scope = AllocationScope.OPEN
    assert provider.run(ALLOCATE_INSTANCES, [f"node:{node.id}"]) == 1
    assert where(instance) == "COMP-1 slappart0"


def test_a_change_of_the_catalogue_has_a_project_looked_at(provider: Provider) -> None:
    provider.node("COMP-1")
    instance = provider.order()
    provider.supply("COMP-1")
    assert provider.run(ALLOCATE_INSTANCES, ["project:2"]) == 0
    assert provider.run(ALLOCATE_INSTANCES, ["project:1"]) == 1
    assert where(instance) == "COMP-1 slappart0"


def test_everything_is_looked_at_now_and_then(provider: Provider) -> None:
    provider.node("COMP-1", partitions=9)
    orders = [provider.order(f"web{number}") for number in range(3)]
    provider.supply("COMP-1")
    assert provider.run(ALLOCATE_INSTANCES) == 3
    assert all(each.is_placed for each in orders)


def test_all_that_wait_for_the_same_are_told_the_reason_as_it_is_now(provider: Provider) -> None:
    provider.node("COMP-1", partitions=0)
    first, second = provider.order("first"), provider.order("second")
    assert second.waiting_code == "no_product"
    provider.supply("COMP-1")
    provider.run(ALLOCATE_INSTANCES, ["project:1"])
    assert [first.waiting_code, second.waiting_code] == ["no_free_partition"] * 2
    assert provider.order("second", parameters={"a": "b"}).waiting_code == "no_free_partition"


def test_a_group_that_cannot_be_placed_keeps_no_other_waiting(provider: Provider) -> None:
    provider.node("COMP-1", partitions=1)
    provider.order("impossible", filters={"region": "mars"})
    provider.order("also", software_url=OTHER)
    possible = provider.order("possible")
    provider.supply("COMP-1")
    assert provider.run(ALLOCATE_INSTANCES, ["project:1"]) == 1
    assert possible.is_placed


def test_the_oldest_of_a_project_is_placed_first_whatever_it_waits_for(provider: Provider) -> None:
    provider.node("COMP-1", partitions=2)
    product = add_product(provider.session, urls=(URL, OTHER))
    titles = ["a", "b", "c", "d"]
    for number, title in enumerate(titles):
        provider.order(title, software_url=(URL, OTHER)[number % 2])
    add_supply(provider.session, product, ["COMP-1"])
    assert provider.run(ALLOCATE_INSTANCES, ["project:1"]) == 2
    assert placed(provider) == ["a", "b"]


def test_a_supply_for_a_later_customer_does_not_wait_for_the_first(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.order("first", owner=1)
    mine = provider.order("mine", owner=2)
    provider.supply("COMP-1", customer_id=2)
    assert provider.run(ALLOCATE_INSTANCES, ["project:1"]) == 1
    assert mine.is_placed


def test_each_project_has_its_turn(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PLACED", 2)
    provider.session.add(
        Project(id=2, reference="PROJ-2", title="two", owner_id=1, created_at=NOON)
    )
    provider.session.flush()
    for project in (1, 2):
        provider.node(f"COMP-{project}", partitions=9, project_id=project)
        for number in range(5):
            provider.order(f"{project}-{number}", tenant=Tenant(project, 1))
        product = add_product(provider.session, project_id=project)
        add_supply(provider.session, product, [f"COMP-{project}"])
    provider.run(ALLOCATE_INSTANCES, ["project:1", "project:2"])
    assert placed(provider) == ["1-0", "1-1", "2-0", "2-1"]
    work_off(provider)
    assert len(placed(provider)) == 10


def test_a_shared_instance_finds_another_host(provider: Provider) -> None:
    provider.node("COMP-1")
    provider.supply("COMP-1")
    host = provider.order("host")
    make_instance_node(provider.session, host)
    shared = provider.order("shared", shared=True)
    assert shared.host is host
    provider.remove(host)
    assert shared.waiting_code == "no_host"
    assert work_off(provider) == 0
    other = provider.order("other")
    make_instance_node(provider.session, other)
    assert provider.run(ALLOCATE_INSTANCES, ["project:1"]) == 1
    assert shared.host is other


def test_a_waiting_instance_that_is_destroyed_is_gone_at_once(provider: Provider) -> None:
    instance = provider.order()
    assert instance.waiting_code == "no_product"
    provider.order(state=InstanceState.DESTROYED)
    assert lookup.trees(provider.session) == []


def test_a_full_node_that_gets_a_partition_is_looked_at(provider: Provider) -> None:
    node = provider.node("COMP-1", partitions=1)
    provider.supply("COMP-1")
    provider.order("first")
    second = provider.order("second")
    assert provider.session.scalars(select(SupplyNode.vacant)).all() == [False]
    provider.format(node, 2)
    assert work_off(provider) == 1
    assert where(second) == "COMP-1 slappart1"


def test_withdrawing_a_product_says_so_to_those_that_wait(provider: Provider) -> None:
    provider.node("COMP-1", partitions=0)
    provider.supply("COMP-1")
    instance = provider.order()
    product = provider.session.scalars(select(SoftwareProduct)).one()
    product.state = "withdrawn"
    provider.run(ALLOCATE_INSTANCES, ["project:1"])
    assert instance.waiting_code == "no_product"
    assert "which is withdrawn" in instance.waiting_reason
