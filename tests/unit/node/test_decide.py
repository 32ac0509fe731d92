"""What is done with a partition in a pass."""

import pytest

from slapos.node.instantiate.decide import Action, Facts, decide, order_of
from slapos.node.record import PartitionRecord
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState

NOW = 1000.0


def partition(
    timestamp: str | None = "7",
    state: InstanceState = InstanceState.STARTED,
    url: str | None = "http://example.com/a.cfg",
) -> PartitionInformation:
    parameters = {} if timestamp is None else {"timestamp": timestamp}
    return PartitionInformation(
        node="n", reference="p0", state=state, software_url=url, parameters=parameters
    )


def facts(
    stamp: str | None = "7", age: float = 10, periodicity: int = 100, built: str = "b1"
) -> Facts:
    return Facts(stamp=stamp, stamp_age=age, periodicity=periodicity, release_built=built)


APPLIED = PartitionRecord(applied=order_of(partition(), facts()))


def decided(
    wanted: PartitionInformation | None = None,
    record: PartitionRecord = APPLIED,
    found: Facts | None = None,
    *,
    force: bool = False,
) -> Action:
    return decide(wanted or partition(), record, found or facts(), force=force, now=NOW)


def test_what_is_applied_is_kept() -> None:
    assert decided() is Action.KEEP


def test_what_another_node_program_applied_is_kept() -> None:
    assert decided(record=PartitionRecord()) is Action.KEEP


@pytest.mark.parametrize(
    "wanted",
    [
        partition("8"),
        partition(None),
        partition(state=InstanceState.STOPPED),
        partition(url="http://example.com/b.cfg"),
    ],
)
def test_what_changed_is_processed(wanted: PartitionInformation) -> None:
    assert decided(wanted) is Action.PROCESS


def test_a_release_built_again_is_processed() -> None:
    assert decided(found=facts(built="b2")) is Action.PROCESS


@pytest.mark.parametrize(
    ("periodicity", "age", "action"),
    [
        (100, 101, Action.PROCESS),
        (100, 99, Action.KEEP),
        (0, 1, Action.PROCESS),
        (-1, 1e9, Action.KEEP),
    ],
)
def test_the_periodicity_counts(periodicity: int, age: float, action: Action) -> None:
    assert decided(found=facts(age=age, periodicity=periodicity)) is action


def test_a_failure_waits_for_its_turn_or_a_change() -> None:
    order = order_of(partition(), facts(stamp=None))
    failed = PartitionRecord(attempted=order).failed(NOW, "no")
    assert decided(record=failed, found=facts(stamp=None)) is Action.WAIT
    assert decided(partition("8"), failed, facts(stamp=None)) is Action.PROCESS
    assert decided(record=failed, found=facts(stamp=None), force=True) is Action.PROCESS
    later = decide(partition(), failed, facts(stamp=None), force=False, now=NOW + 11)
    assert later is Action.PROCESS


def test_a_free_partition_is_free_whatever_is_forced() -> None:
    free = partition(state=InstanceState.DESTROYED, url=None)
    assert decided(free, force=True) is Action.FREE
