from dataclasses import replace
from typing import Any

import pytest

from slapos.protocol.errors import MalformedDocument
from slapos.protocol.marshal import Marshalled, dumps, loads
from slapos.protocol.messages import (
    NodeInformation,
    PartitionInformation,
    ReleaseAssignment,
    RequestedInstance,
)
from slapos.protocol.states import InstallationState, InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus


def make_node() -> NodeInformation:
    busy = PartitionInformation(
        node="local",
        reference="slappart0",
        state=InstanceState.STARTED,
        software_url="http://example.com/software.cfg",
        parameters={
            "timestamp": "12.5",
            "slap_software_type": "default",
            "ip_list": [("lo", "::1")],
        },
        connection={"url": "http://[::1]/"},
        filter={"computer_guid": "local"},
        instance_guid="local-slappart0",
        access_status="#access ok",
    )
    return NodeInformation(
        reference="local",
        releases=(
            ReleaseAssignment(
                url="http://example.com/software.cfg",
                node="local",
                state=InstallationState.DESTROYED,
            ),
        ),
        partitions=(busy, PartitionInformation(node="local", reference="slappart1")),
    )


def test_all_that_a_node_must_know_survives_the_wire() -> None:
    node = make_node()
    assert NodeInformation.from_marshalled(loads(dumps(node.to_marshalled()))) == node


def test_what_is_as_before_is_in_memory_once() -> None:
    before, after = make_node(), make_node()
    changed = replace(after.partitions[-1], parameters={"timestamp": "13"})
    after = replace(after, partitions=(*after.partitions[:-1], changed))
    shared = after.sharing(before)
    assert shared == after
    assert [p is q for p, q in zip(shared.partitions, before.partitions, strict=True)] == [
        *[True] * (len(before.partitions) - 1),
        False,
    ]


def test_a_partition_that_was_not_there_before_shares_nothing() -> None:
    node = make_node()
    assert node.sharing(replace(node, partitions=())).partitions == node.partitions


def test_a_partition_says_what_is_asked_of_it_most() -> None:
    busy, free = make_node().partitions
    assert (busy.timestamp, busy.software_type, busy.is_free) == ("12.5", "default", False)
    assert (free.timestamp, free.software_type, free.is_free) == (None, None, True)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        Marshalled("Computer"),
        Marshalled("ComputerPartition", (), {"_requested_state": "flying"}),
        Marshalled("ComputerPartition", (), {"_parameter_dict": [1]}),
    ],
)
def test_what_is_no_partition_is_refused(value: Any) -> None:
    with pytest.raises(MalformedDocument):
        PartitionInformation.from_marshalled(value)


def test_a_requested_instance_keeps_all_that_the_master_said() -> None:
    state = {"_instance_guid": "I-1", "_connection_dict": {"a": "b"}, "slap_computer_id": "local"}
    instance = RequestedInstance.from_marshalled(Marshalled("SoftwareInstance", (), state))
    assert (instance.guid, instance.connection, instance.node) == ("I-1", {"a": "b"}, "local")
    assert instance.attributes == state


def test_a_tree_is_healthy_when_every_instance_is() -> None:
    def status(title: str, phase: Phase) -> InstanceStatus:
        return InstanceStatus(
            guid=title,
            title=title,
            software_url="u",
            software_type="default",
            requested_state=InstanceState.STARTED,
            phase=phase,
        )

    tree = TreeStatus(
        title="t", instances=(status("t", Phase.HEALTHY), status("child", Phase.PROMISING))
    )
    assert not tree.healthy
    assert TreeStatus.from_json(tree.to_json()) == tree
    with pytest.raises(MalformedDocument):
        TreeStatus.from_json({"title": "t", "instances": [{"phase": "flying"}]})
