"""A master that tells an older state than before."""

from slapos.node.agent.older import Hesitation, older_partitions
from slapos.protocol.messages import NodeInformation, PartitionInformation


def told(**timestamps: str | None) -> NodeInformation:
    return NodeInformation(
        reference="node",
        partitions=tuple(
            PartitionInformation(
                node="node",
                reference=reference,
                parameters={} if timestamp is None else {"timestamp": timestamp},
            )
            for reference, timestamp in timestamps.items()
        ),
    )


def test_timestamps_are_compared_as_numbers() -> None:
    before = told(same="9", newer="9.5", older="10", word="b", free=None, gone="5")
    after = told(same="9.0", newer="10.25", older="9.75", word="a", free="1", new="0")
    assert older_partitions(before, after) == ["older"]


def test_an_older_state_is_accepted_once_it_was_told_for_long_enough() -> None:
    hesitation = Hesitation(600.0)
    before, after = told(p0="10", p1="1"), told(p0="9", p1="1")
    assert hesitation.judge(None, after, 0.0) == []
    assert hesitation.judge(before, after, 100.0) == ["p0"]
    assert hesitation.left(400.0) == 300.0
    assert hesitation.judge(before, after, 699.0) == ["p0"]
    assert hesitation.judge(before, after, 700.0) == []
    assert not hesitation.waits


def test_when_the_master_knows_better_again_the_wait_is_over() -> None:
    hesitation = Hesitation(600.0)
    before, after = told(p0="10"), told(p0="9")
    assert hesitation.judge(before, after, 0.0) == ["p0"]
    assert hesitation.judge(before, told(p0="11"), 10.0) == []
    assert hesitation.judge(before, after, 700.0) == ["p0"]


def test_without_patience_it_is_accepted_at_once() -> None:
    assert Hesitation(0.0).judge(told(p0="10"), told(p0="9"), 0.0) == []
