"""An older state than before: what a master says that was restored from yesterday's copy.

To act on it at once would undo what was ordered since, and remove what it does not know yet. So it
waits: a mistake can be mended meanwhile. Then it is accepted, as the master has the last word.
"""

from slapos.protocol.messages import NodeInformation, PartitionInformation


def older_partitions(before: NodeInformation, after: NodeInformation) -> list[str]:
    """Return which partitions have a timestamp that is lower than it was."""
    known = {partition.reference: _number(partition) for partition in before.partitions}
    found = []
    for partition in after.partitions:
        was, now = known.get(partition.reference), _number(partition)
        if was is not None and now is not None and now < was:
            found.append(partition.reference)
    return found


def _number(partition: PartitionInformation) -> float | None:
    try:
        return float(partition.timestamp or "")
    except ValueError:
        return None


class Hesitation:
    """Whether an answer is to be acted on: an older one only once that has been said for a while.

    `patience` is in seconds, 0 for none.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None

    def judge(
        self, before: NodeInformation | None, after: NodeInformation, now: float
    ) -> list[str]:
        """Return because of which partitions `after` has to wait; nothing when it is accepted.

        `before` is what was accepted last, `now` of a clock that does not jump.
        """
        older = older_partitions(before, after) if before is not None else []
        if not older:
            self._since = None
            return []
        if self._since is None:
            self._since = now
        if now - self._since >= self._patience:
            self._since = None
            return []
        return older

    def settle(self) -> None:
        """The master says again what was accepted: nothing waits."""
        self._since = None

    @property
    def waits(self) -> bool:
        """Whether an answer waits."""
        return self._since is not None

    def left(self, now: float) -> float:
        """Return how many seconds it still waits."""
        return 0.0 if self._since is None else max(self._since + self._patience - now, 0.0)
