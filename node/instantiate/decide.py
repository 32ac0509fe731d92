"""What is to be done with a partition in this pass: a decision, from facts."""

from dataclasses import dataclass
from enum import StrEnum

from slapos.node.record import PartitionRecord
from slapos.protocol.messages import PartitionInformation
from slapos.protocol.states import InstanceState

#: Seconds between two times that the agent processes what is always to be processed.
SHORTEST_PERIOD = 60.0


class Action(StrEnum):
    """What is to be done."""

    FREE = "free"
    """Nothing is in it: forget what was."""
    PROCESS = "process"
    """Run its steps."""
    WAIT = "wait"
    """It failed, nothing has changed since, and it is not yet time to try again."""
    KEEP = "keep"
    """It is as wanted: see that it stays so."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is on disk of a partition.

    `release_built` tells one build of its release from the next, `periodicity` is in seconds (0 is
    always, below 0 never), `stamp` the content of `.timestamp` and `stamp_age` its age in seconds.
    """

    release_built: str = ""
    periodicity: int = 86400
    stamp: str | None = None
    stamp_age: float = 0.0


def order_of(wanted: PartitionInformation, facts: Facts) -> str:
    """Return what tells one order from the next: when it changes, the partition is processed."""
    return " ".join(
        (
            wanted.timestamp or "-",
            str(wanted.state),
            wanted.software_url or "-",
            facts.release_built or "-",
        )
    )


def is_applied(record: PartitionRecord, order: str) -> bool:
    """Return whether an order is brought about; of a lost record that is taken for granted."""
    return record.applied == order or not (record.applied or record.attempted)


def again_in(
    wanted: PartitionInformation, record: PartitionRecord, facts: Facts, now: float
) -> float:
    """Return after how many seconds a partition is due by itself; infinity when only a change is.

    One that is always to be processed (periodicity 0) is due each minute.
    """
    if record.failures:
        return record.waits(now)
    is_over = wanted.state is InstanceState.DESTROYED
    if is_over or facts.stamp is None or facts.periodicity < 0:
        return float("inf")
    return max(facts.periodicity, SHORTEST_PERIOD) - max(facts.stamp_age, 0.0)


def decide(
    wanted: PartitionInformation, record: PartitionRecord, facts: Facts, *, force: bool, now: float
) -> Action:
    """Return what is to be done."""
    if wanted.is_free:
        return Action.FREE
    if force:
        return Action.PROCESS
    order = order_of(wanted, facts)
    if record.failures and record.attempted == order:
        return Action.WAIT if record.waits(now) else Action.PROCESS
    if wanted.timestamp is None or facts.stamp != wanted.timestamp:
        return Action.PROCESS
    if record.applied and record.applied != order:
        return Action.PROCESS
    if wanted.state is InstanceState.DESTROYED:
        return Action.KEEP
    if facts.periodicity == 0 or 0 < facts.periodicity < facts.stamp_age:
        return Action.PROCESS
    return Action.KEEP
