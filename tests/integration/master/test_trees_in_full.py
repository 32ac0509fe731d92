"""Trees of many customers: orphans, what is destroyed, lost nodes, bangs."""

import pytest
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from slapos.master.identity.caller import SYSTEM, serve
from slapos.master.monitoring.losses import REALLOCATE
from slapos.master.monitoring.model import NodeLoss
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import lookup, reports
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.model import SoftwareInstance
from slapos.protocol.errors import Conflict
from slapos.protocol.states import InstanceState
from tests.fakes import NOON, FakeClock
from tests.integration.master.provider import Provider, make_instance_node, where

DESTROYED = InstanceState.DESTROYED
DAY = 86400.0


@pytest.fixture
def provider(session: Session, clock: FakeClock) -> Provider:
    serve(session, SYSTEM)
    provider = Provider(session, clock)
    provider.node("COMP-1", partitions=9)
    provider.supply("COMP-1", shared_in_same_tree=True)
    return provider


def told(provider: Provider, instance: SoftwareInstance, *titles: str) -> None:
    reports.report_related(provider.session, provider.clock, instance, titles)


def report(provider: Provider, instance: SoftwareInstance, state: InstanceState) -> None:
    reports.report_state(provider.session, provider.clock, instance, state)


def titles(provider: Provider) -> list[str]:
    return sorted(provider.session.scalars(select(SoftwareInstance.title)))


def lose(provider: Provider, node: str) -> None:
    found = provider.session.scalars(select(ComputeNode).where(ComputeNode.reference == node)).one()
    provider.session.add(NodeLoss(node_id=found.id, heard_at=NOON, lost_at=NOON, released_at=NOON))
    provider.session.flush()


def test_two_customers_give_one_title_to_their_own(provider: Provider) -> None:
    mine, theirs = provider.order(owner=1), provider.order(owner=2)
    assert mine.tree_id != theirs.tree_id
    provider.order(owner=1, state=InstanceState.STOPPED)
    assert theirs.requested_state == InstanceState.STARTED
    provider.order("other", owner=1)
    with pytest.raises(Conflict, match="taken"):
        provisioning.rename(provider.session, provider.clock, mine, "other")
    provisioning.rename(provider.session, provider.clock, theirs, "other")


def test_stopping_and_destroying_reach_every_child(provider: Provider) -> None:
    root = provider.order()
    child = provider.order("child", requester=root)
    grandchild = provider.order("grandchild", requester=child)
    shared = provider.order("shared", requester=child, shared=True)
    provider.order(state=InstanceState.STOPPED)
    for each in (child, grandchild, shared):
        assert each.requested_state == InstanceState.STOPPED
    assert provider.order("late", requester=child).requested_state == InstanceState.STOPPED
    provider.order(state=DESTROYED)
    assert titles(provider) == ["child", "grandchild", "late", "web"]
    for each in (root, child, grandchild):
        report(provider, each, DESTROYED)
    assert titles(provider) == ["child", "late", "web"]  # who asked for it waits for it
    report(provider, provider.session.scalars(_named("late")).one(), DESTROYED)
    assert titles(provider) == []
    assert lookup.trees(provider.session) == []


def _named(title: str) -> Select[SoftwareInstance]:
    return select(SoftwareInstance).where(SoftwareInstance.title == title)


def test_a_child_that_waits_is_gone_with_its_tree(provider: Provider) -> None:
    root = provider.order()
    provider.order("child", requester=root, filters={"region": "mars"})
    provider.order(state=DESTROYED)
    assert titles(provider) == ["web"]
    report(provider, root, DESTROYED)
    assert titles(provider) == []


def test_a_root_without_a_place_goes_when_its_children_have(provider: Provider) -> None:
    root = provider.order()
    child = provider.order("child", requester=root)
    root.leave()
    provider.session.flush()
    provider.order(state=DESTROYED)
    assert titles(provider) == ["child", "web"]
    report(provider, child, DESTROYED)
    assert titles(provider) == []


def test_who_is_not_asked_for_any_more_is_destroyed_after_a_grace(provider: Provider) -> None:
    root = provider.order()
    kept = provider.order("kept", requester=root)
    orphan = provider.order("orphan", requester=root)
    below = provider.order("below", requester=orphan)
    told(provider, root, "kept")
    assert orphan.orphaned_at == provider.clock.now()
    assert (kept.orphaned_at, below.orphaned_at) == (None, None)
    provider.clock.advance(DAY - 1)
    assert provider.run("collect_orphans") == 0
    provider.clock.advance(1)
    assert provider.run("collect_orphans") == 1
    assert orphan.requested_state == below.requested_state == DESTROYED
    assert kept.requested_state == InstanceState.STARTED
    assert provider.run("collect_orphans") == 0


def test_who_is_asked_for_again_is_no_orphan(provider: Provider) -> None:
    root = provider.order()
    one, two = (provider.order(title, requester=root) for title in ("one", "two"))
    told(provider, root)
    told(provider, root, "one")
    provider.order("two", requester=root)
    assert (one.orphaned_at, two.orphaned_at) == (None, None)


def test_an_orphan_stays_one_since_it_became_so(provider: Provider) -> None:
    root = provider.order()
    child = provider.order("child", requester=root)
    told(provider, root)
    since = child.orphaned_at
    provider.clock.advance(60)
    told(provider, root)
    assert child.orphaned_at == since


def test_a_bang_of_what_is_to_be_processed_anyway_changes_nothing(provider: Provider) -> None:
    root = provider.order()
    child = provider.order("child", requester=root)
    for each in (root, child):
        report(provider, each, InstanceState.STARTED)
    before = root.changed_at
    provider.clock.advance(1)
    provisioning.bang(provider.session, provider.clock, root.tree)
    assert root.changed_at == child.changed_at > before
    banged = root.changed_at
    provider.clock.advance(1)
    provisioning.bang(provider.session, provider.clock, root.tree)
    assert root.changed_at == banged


def test_what_may_move_from_a_lost_node_moves(provider: Provider) -> None:
    root = provider.order(filters={"reallocate": "true"})
    shared = provider.order("shared", requester=root, shared=True)
    child = provider.order("child", requester=root)
    pinned = provider.order("pinned", filters={"reallocate": "true", "computer_guid": "COMP-1"})
    report(provider, root, InstanceState.STARTED)
    provider.node("COMP-2")
    provider.supply_more("COMP-2")
    old = where(root)
    lose(provider, "COMP-1")
    assert provider.run(REALLOCATE, ["COMP-1"]) == 1
    assert where(root) == "COMP-2 slappart0"
    assert where(shared) == "COMP-2 slappart0"
    assert shared.node is root.node
    assert where(child).startswith("COMP-1 ")
    assert where(pinned).startswith("COMP-1 ")
    assert root.reported_state is None
    assert provider.run(REALLOCATE, ["COMP-1"]) == 0
    remnant = provider.session.scalars(_named("web (left on COMP-1)")).one()
    assert where(remnant) == old
    assert remnant.requested_state == DESTROYED
    report(provider, remnant, DESTROYED)
    assert remnant.title not in titles(provider)
    assert root.requested_state == InstanceState.STARTED


def test_what_finds_no_other_place_waits_for_one(provider: Provider) -> None:
    root = provider.order(filters={"reallocate": "true"})
    lose(provider, "COMP-1")
    provider.run(REALLOCATE, ["COMP-1"])
    assert root.waiting_code == "node_closed"
    assert "COMP-1 is not heard of" in root.waiting_reason
    provider.node("COMP-2")
    provider.supply_more("COMP-2")
    assert provider.run("allocate_instances", ["project:1"]) == 1
    assert where(root) == "COMP-2 slappart0"


def test_a_node_that_is_back_keeps_what_it_has(provider: Provider) -> None:
    root = provider.order(filters={"reallocate": "true"})
    assert provider.run(REALLOCATE, ["COMP-1"]) == 0
    assert where(root) == "COMP-1 slappart0"


def test_all_given_up_nodes_are_looked_at_now_and_then(provider: Provider) -> None:
    provider.order(filters={"reallocate": "yes"})
    lose(provider, "COMP-1")
    assert provider.run(REALLOCATE) == 1


def test_nothing_is_placed_on_a_lost_node(provider: Provider) -> None:
    make_instance_node(provider.session, provider.order("host"))
    lose(provider, "COMP-1")
    assert provider.order().waiting_code == "node_closed"
    assert provider.order("shared", owner=2, shared=True).waiting_code == "node_closed"


def test_a_title_is_of_one_tree_be_that_shared_or_not(provider: Provider) -> None:
    mine = provider.order("web")
    with pytest.raises(Conflict, match="cannot make it a shared instance"):
        provider.order("web", shared=True)
    shared = provider.order("shared", shared=True)
    with pytest.raises(Conflict, match="cannot make it a service of its own"):
        provider.order("shared", state=DESTROYED)
    with pytest.raises(Conflict, match="taken"):
        provisioning.rename(provider.session, provider.clock, shared, "web")
    # Others have titles of their own, and so have the instances below a root.
    provider.order("web", owner=2, shared=True)
    provider.order("web", requester=mine, shared=True)
    provider.order("web", requester=mine)
