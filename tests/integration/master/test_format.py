"""A node tells what it has."""

import pytest
from sqlalchemy import select

from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputePartition, PartitionAddress
from slapos.master.nodes.service import Address
from slapos.master.provisioning import reports
from slapos.protocol.errors import InvalidRequest, NotFound
from slapos.protocol.states import InstanceState
from tests.fakes import FakeClock
from tests.integration.master.factories import NODE, Master, node_format, partition_format


def test_new_partitions_are_free_and_in_the_order_they_were_told(master: Master) -> None:
    master.format(12)
    assert list(master.partitions()) == [f"slappart{number}" for number in range(12)]
    assert set(master.partitions().values()) == {"free"}


def test_the_same_again_modifies_nothing(master: Master, clock: FakeClock) -> None:
    master.format(2)
    instance = master.request()
    before = instance.changed_at
    clock.advance(60)
    told = node_format(2)
    assert nodes.format_node(master.session, clock, told) == []
    assert not master.session.dirty
    assert instance.changed_at == before


def test_a_free_partition_that_is_no_longer_told_goes(master: Master) -> None:
    master.format(3)
    master.format(1)
    assert list(master.partitions()) == ["slappart0"]
    rows = master.session.scalars(select(PartitionAddress)).all()
    assert [row.address for row in rows] == ["10.0.0.0"]


def test_a_busy_partition_is_kept_until_it_is_free(master: Master) -> None:
    master.format(2)
    master.request()
    master.format(0)
    kept = nodes.find_partition(master.session, NODE, "slappart0")
    assert kept.missing_since is not None
    assert list(master.partitions()) == ["slappart0"]
    instance = master.request(state=InstanceState.DESTROYED)
    reports.report_state(master.session, master.clock, instance, InstanceState.DESTROYED)
    assert master.partitions() == {}


def test_a_missing_partition_that_is_told_again_is_as_before(master: Master) -> None:
    master.format(1)
    master.request()
    master.format(0)
    master.format(1)
    assert nodes.find_partition(master.session, NODE, "slappart0").missing_since is None


def test_other_addresses_have_the_instance_processed_again(
    master: Master, clock: FakeClock
) -> None:
    master.format(1)
    instance = master.request()
    shared = master.request("s", shared=True)
    before, shared_before = instance.changed_at, shared.changed_at
    clock.advance(1)
    moved = partition_format(0, addresses=[Address(interface="lo", address="10.9.9.9")])
    master.format(partitions=[moved])
    assert instance.changed_at > before
    assert shared.changed_at > shared_before
    partition = nodes.find_partition(master.session, NODE, "slappart0")
    assert [address.address for address in partition.addresses] == ["10.9.9.9"]


def test_addresses_and_capabilities_may_come_and_go(master: Master) -> None:
    addresses = [Address(interface="lo", address=f"::{number}") for number in range(3)]
    for names, count in ((["gpu", "large"], 3), (["large"], 1), ([], 2)):
        told = partition_format(0, addresses=addresses[:count], capabilities=names)
        master.format(partitions=[told])
        master.session.expire_all()
        (partition,) = master.session.scalars(select(ComputePartition)).all()
        assert [each.name for each in partition.capabilities] == names
        assert [each.address for each in partition.addresses] == [
            address.address for address in addresses[:count]
        ]


def test_a_partition_that_is_told_twice_is_refused(master: Master) -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        master.format(partitions=[partition_format(0), partition_format(0)])


def test_control_characters_are_refused(master: Master) -> None:
    with pytest.raises(InvalidRequest, match="control characters"):
        master.format(partitions=[partition_format(0, reference="slap\0part")])


def test_who_asks_for_an_unknown_node_is_told_the_known_ones(master: Master) -> None:
    with pytest.raises(NotFound, match="known are: computer"):
        nodes.find_node(master.session, "compter")
