"""Shared instances have a host and no partition of their own."""

import pytest

from slapos.master.provisioning import lookup, reports
from slapos.master.provisioning import service as provisioning
from slapos.protocol.errors import NoCapacity, NotFound
from slapos.protocol.states import InstanceState
from tests.fakes import FakeClock
from tests.integration.master.factories import NODE, Master

STARTED, STOPPED, DESTROYED = InstanceState


def test_a_shared_instance_goes_to_an_instance_of_its_release_and_type(master: Master) -> None:
    master.format(3)
    master.request("a", software_type="other")
    host = master.request("b")
    shared = master.request("s", shared=True)
    assert shared.host is host
    assert shared.partition is None
    assert shared.reference == "_s"


def test_without_a_host_the_reason_is_given(master: Master) -> None:
    master.format(2)
    master.request("a", software_type="other")
    with pytest.raises(NoCapacity, match="no instance can host the shared instance 's': on the"):
        master.request("s", shared=True)


@pytest.mark.parametrize("guid", ["computer-slappart1", "slappart1"])
def test_a_filter_names_the_host(master: Master, guid: str) -> None:
    master.format(2)
    master.request("a")
    second = master.request("b")
    assert master.request("s", shared=True, filters={"instance_guid": guid}).host is second
    with pytest.raises(NoCapacity, match="with the guid nobody"):
        master.request("t", shared=True, filters={"instance_guid": "nobody"})


def test_every_change_has_the_host_processed_again(master: Master, clock: FakeClock) -> None:
    master.format(1)
    host = master.request("host")
    stamps = [host.changed_at]
    for fields in ({}, {"parameters": {"a": "b"}}, {"state": STOPPED}, {"state": DESTROYED}):
        clock.advance(1)
        master.request("s", shared=True, **fields)
        stamps.append(host.changed_at)
    assert stamps == sorted(set(stamps))


def test_an_identical_request_leaves_the_host_alone(master: Master, clock: FakeClock) -> None:
    master.format(1)
    host = master.request("host")
    master.request("s", shared=True, parameters={"a": "b"})
    before = host.changed_at
    clock.advance(1)
    master.request("s", shared=True, parameters={"a": "b"})
    assert host.changed_at == before
    assert not master.session.dirty


def test_destroying_it_needs_no_node(master: Master) -> None:
    master.format(1)
    host = master.request("host")
    master.request("s", shared=True)
    gone = master.request("s", shared=True, state=DESTROYED)
    assert gone.requested_state == DESTROYED
    assert lookup.shared_on(master.session, host) == []
    assert master.titles() == ["host"]


def test_destroying_its_tree_takes_it_along(master: Master) -> None:
    master.format(2)
    host = master.request("host")
    root = master.request()
    master.request("s", shared=True, requester=root)
    before = host.changed_at
    master.request(state=DESTROYED)
    assert lookup.shared_on(master.session, host) == []
    assert host.changed_at > before
    reports.report_state(master.session, master.clock, root, DESTROYED)
    assert master.titles() == ["host"]


def test_without_its_host_it_is_placed_anew_when_asked_for_again(master: Master) -> None:
    master.format(2)
    host = master.request("host")
    shared = master.request("s", shared=True)
    provisioning.publish(master.session, master.clock, shared, {"url": "a"})
    master.request("host", state=DESTROYED)
    reports.report_state(master.session, master.clock, host, DESTROYED)
    assert shared.host is None
    with pytest.raises(NoCapacity):
        master.request("s", shared=True)
    other = master.request("other")
    assert master.request("s", shared=True).host is other
    assert shared.connection == {}


def test_its_connection_goes_to_whoever_asked_for_it(master: Master, clock: FakeClock) -> None:
    master.format(3)
    host, root = master.request("host"), master.request()
    parent = master.request("p", requester=root)
    shared = master.request("s", shared=True, requester=parent)
    before = root.changed_at, parent.changed_at
    clock.advance(1)
    found = lookup.find_shared(master.session, host, "root_s")
    assert found is shared
    provisioning.publish(master.session, clock, found, {"url": "a"})
    assert root.changed_at == before[0]
    assert parent.changed_at > before[1]
    with pytest.raises(NotFound, match="hosts no shared instance 'root_t'"):
        lookup.find_shared(master.session, host, "root_t")


def test_a_bang_of_its_tree_reaches_the_host(master: Master) -> None:
    master.format(1)
    host = master.request("host")
    shared = master.request("s", shared=True)
    before = host.changed_at
    provisioning.bang(master.session, master.clock, shared.tree)
    assert host.changed_at > before


def test_it_may_have_the_title_of_a_service(master: Master) -> None:
    master.format(1)
    service = master.request("same")
    shared = master.request("same", shared=True)
    assert shared.host is service
    assert lookup.find_tree(master.session, "same") is service.tree
    assert lookup.find_on_partition(master.session, NODE, "slappart0") is service
