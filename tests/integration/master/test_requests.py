"""Instances are requested, changed and given up."""

from typing import Any

import pytest

from slapos.master.nodes import service as nodes
from slapos.master.provisioning import lookup, reports
from slapos.master.provisioning import service as provisioning
from slapos.protocol.errors import Conflict, InvalidRequest, NoCapacity, NotReady
from slapos.protocol.states import InstanceState
from tests.fakes import FakeClock
from tests.integration.master.factories import NODE, URL, Master, partition_format

STARTED, STOPPED, DESTROYED = InstanceState


def test_an_instance_gets_the_first_free_partition(master: Master) -> None:
    master.format(2)
    first, second = master.request("a"), master.request("b")
    assert (first.reference, second.reference) == ("computer-slappart0", "computer-slappart1")
    assert set(master.partitions().values()) == {"busy"}


def test_an_identical_request_changes_nothing(master: Master, clock: FakeClock) -> None:
    master.format(2)
    asked: dict[str, Any] = {
        "parameters": {"number": 1, "empty": "", "text": "ä"},
        "filters": {"a": "b"},
    }
    first = master.request(**asked)
    before = first.changed_at
    clock.advance(60)
    again = master.request(**asked)
    assert again is first
    assert again.changed_at == before
    assert not master.session.dirty
    assert first.parameters == {"number": "1", "empty": None, "text": "ä"}


@pytest.mark.parametrize(
    "different",
    [
        {"parameters": {"a": "2"}},
        {"software_type": "other"},
        {"software_url": "https://example.org/other.cfg"},
        {"filters": {"fw_restricted_access": "on"}},
        {"state": STOPPED},
    ],
)
def test_a_different_request_changes_the_timestamp(
    master: Master, different: dict[str, Any]
) -> None:
    """Even when the clock stands still."""
    master.format(2)
    instance = master.request(parameters={"a": "1"})
    before = instance.changed_at
    master.request(**({"parameters": {"a": "1"}} | different))
    assert instance.changed_at > before
    assert instance.reference == "computer-slappart0"


def test_the_same_title_in_two_trees_is_two_instances(master: Master) -> None:
    master.format(4)
    first, second = master.request("a"), master.request("b")
    assert master.request("db", requester=first) is not master.request("db", requester=second)


def test_an_instance_asked_for_by_another_of_its_tree_moves_there(master: Master) -> None:
    master.format(4)
    root = master.request()
    parent, other = master.request("b", requester=root), master.request("d", requester=root)
    child = master.request("c", requester=parent)
    assert master.request("c", requester=other) is child
    assert child.requester is other


def test_nobody_requests_its_own_requester(master: Master) -> None:
    master.format(4)
    root = master.request()
    parent = master.request("b", requester=root)
    child = master.request("c", requester=parent)
    with pytest.raises(Conflict, match="'c' cannot request 'b', which has requested it"):
        master.request("b", requester=child)


def test_a_full_node_says_so(master: Master) -> None:
    master.format(2)
    master.request("a"), master.request("b")
    with pytest.raises(NoCapacity, match="'c' cannot be placed on the node 'computer': it has 2"):
        master.request("c")


def test_a_node_without_partitions_says_so(master: Master) -> None:
    with pytest.raises(NoCapacity, match="no partitions yet; run `slapos node format`"):
        master.request()


def test_a_node_that_a_filter_names_is_chosen(master: Master) -> None:
    master.format(1)
    master.format(1, reference="other")
    assert master.request("a", filters={"computer_guid": "other"}).reference == "other-slappart0"
    with pytest.raises(NoCapacity, match=r"'other' \(filter computer_guid\): it has 1"):
        master.request("b", filters={"computer_guid": "other"})
    with pytest.raises(NoCapacity, match="there is no node 'none'; known are: computer, other"):
        master.request("b", filters={"computer_guid": "none"})


def test_partitions_with_capabilities_are_for_those_who_ask(master: Master) -> None:
    master.format(partitions=[partition_format(0, capabilities=["gpu"])])
    with pytest.raises(NoCapacity, match="kept for requests that ask for a capability"):
        master.request("a")
    with pytest.raises(NoCapacity, match="none of its 1 free partitions has the capability 'ssd'"):
        master.request("a", filters={"capability": "ssd"})
    assert master.request("a", filters={"capability": "gpu"}).reference == "computer-slappart0"


def test_children_are_not_started_below_a_stopped_root(master: Master) -> None:
    master.format(2)
    root = master.request()
    child = master.request("c", requester=root)
    before = child.changed_at
    master.request(state=STOPPED)
    assert child.requested_state == STOPPED
    assert child.changed_at > before
    master.request("c", requester=root, state=STARTED)
    assert child.requested_state == STOPPED
    master.request(state=STARTED)
    master.request("c", requester=root, state=STARTED)
    assert child.requested_state == STARTED


def test_stopping_reaches_only_those_below(master: Master) -> None:
    master.format(4)
    root = master.request()
    parent, beside = master.request("b", requester=root), master.request("d", requester=root)
    child = master.request("c", requester=parent)
    master.request("b", requester=root, state=STOPPED)
    states = {i.title: i.requested_state for i in (root, parent, beside, child)}
    assert states == {"root": STARTED, "b": STOPPED, "d": STARTED, "c": STOPPED}


def test_destroying_a_tree_frees_everything_whoever_is_removed_first(master: Master) -> None:
    master.format(3)
    root = master.request()
    parent = master.request("b", requester=root)
    child = master.request("c", requester=parent)
    master.request(state=DESTROYED)
    assert {i.requested_state for i in (root, parent, child)} == {DESTROYED}
    assert set(master.partitions().values()) == {"busy"}
    waiting = reports.report_state(master.session, master.clock, root, DESTROYED)
    assert [instance.title for instance in waiting] == ["b", "c"]
    reports.report_state(master.session, master.clock, parent, DESTROYED)
    assert master.titles() == ["root", "b", "c"]
    reports.report_state(master.session, master.clock, child, DESTROYED)
    assert master.titles() == []
    assert set(master.partitions().values()) == {"free"}


def test_an_instance_that_is_wanted_again_while_it_waits_is_not_forgotten(master: Master) -> None:
    master.format(2)
    root = master.request()
    child = master.request("c", requester=root)
    master.request(state=DESTROYED)
    reports.report_state(master.session, master.clock, root, DESTROYED)
    master.request(state=STARTED)
    reports.report_state(master.session, master.clock, child, DESTROYED)
    assert master.titles() == ["root"]


def test_what_is_not_there_cannot_be_destroyed(master: Master) -> None:
    master.format(1)
    with pytest.raises(NotReady, match="none to destroy"):
        master.request(state=DESTROYED)
    assert master.titles() == []


def test_nothing_new_is_made_for_what_is_to_be_destroyed(master: Master) -> None:
    master.format(2)
    root = master.request()
    master.request(state=DESTROYED)
    with pytest.raises(NotReady, match="whoever asks is to be destroyed itself"):
        master.request("c", requester=root)


def test_a_changed_connection_bangs_the_requester_only(master: Master, clock: FakeClock) -> None:
    master.format(3)
    root = master.request()
    parent = master.request("b", requester=root)
    child = master.request("c", requester=parent)
    before = [each.changed_at for each in (root, parent, child)]
    clock.advance(1)
    assert provisioning.publish(master.session, clock, child, {"port": 80})
    assert child.connection == {"port": "80"}
    after = [each.changed_at for each in (root, parent, child)]
    assert [new > old for new, old in zip(after, before, strict=True)] == [False, True, False]
    assert not provisioning.publish(master.session, clock, child, {"port": "80"})
    assert [each.changed_at for each in (root, parent, child)] == after


def test_a_bang_gives_the_whole_tree_one_new_timestamp(master: Master) -> None:
    master.format(3)
    root, other = master.request(), master.request("other")
    child = master.request("c", requester=root)
    before = other.changed_at
    for _ in range(2):
        stamp = root.changed_at
        provisioning.bang(master.session, master.clock, child.tree)
        assert root.changed_at == child.changed_at > stamp
    assert other.changed_at == before


def test_a_node_bangs_every_tree_on_it(master: Master) -> None:
    master.format(2)
    master.format(1, reference="other")
    here = master.request()
    away = master.request("c", requester=here, filters={"computer_guid": "other"})
    before = here.changed_at, away.changed_at
    provisioning.bang_node(master.session, master.clock, NODE)
    assert here.changed_at > before[0]
    assert away.changed_at > before[1]


def test_a_root_is_renamed_with_its_tree(master: Master, clock: FakeClock) -> None:
    master.format(3)
    root = master.request()
    child = master.request("c", requester=root)
    before = child.changed_at
    clock.advance(1)
    provisioning.rename(master.session, clock, root, "new")
    assert master.request("new") is root
    assert child.tree.title == "new"
    assert child.changed_at > before
    provisioning.rename(master.session, clock, child, "new")  # a child may be called as its root
    assert master.request("new", requester=root) is child


def test_a_title_that_is_taken_is_refused(master: Master, clock: FakeClock) -> None:
    master.format(4)
    root, _ = master.request(), master.request("other")
    child = master.request("c", requester=root)
    master.request("d", requester=root)
    for instance, title in ((root, "other"), (child, "d")):
        with pytest.raises(Conflict, match="title is taken"):
            provisioning.rename(master.session, clock, instance, title)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"title": ""}, "the title of an instance is empty"),
        ({"title": "a" * 201}, "201 bytes, 200 are allowed"),
        ({"title": "a\nb"}, "control characters"),
        ({"software_url": ""}, "the URL of a release is empty"),
        ({"software_url": URL + "ä" * 1000}, "bytes, 2000 are allowed"),
        ({"software_type": "a" * 201}, "201 bytes"),
        ({"parameters": {"a": "\0"}}, "cannot be written as XML"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_a_reason(
    master: Master, fields: dict[str, Any], reason: str
) -> None:
    master.format(1)
    with pytest.raises(InvalidRequest, match=reason):
        master.request(**fields)


def test_two_instances_never_get_one_reference(master: Master) -> None:
    master.format(3)
    master.request("a_b", shared=False)
    master.request("a", shared=False)
    one = master.request("c", requester=master.request("a_b"), shared=True)
    other = master.request("b_c", requester=master.request("a"), shared=True)
    assert (one.reference, other.reference) == ("a_b_c", "a_b_c~2")


def test_the_partition_of_an_instance_is_found(master: Master) -> None:
    master.format(2)
    instance = master.request()
    assert lookup.find_on_partition(master.session, NODE, "slappart0") is instance
    assert lookup.find_on_partition(master.session, NODE, "slappart1") is None
    assert nodes.find_partition(master.session, NODE, "slappart0").state == "busy"
