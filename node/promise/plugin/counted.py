"""What our plugins have in common: how often they run, and how many failures are an anomaly."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

from slapos.node.promise.generic import BaseResult, GenericPromise
from slapos.node.promise.state_file import DEFAULT_PERIODICITY

TRUE_WORDS = frozenset({"true", "yes", "1"})


class CountedPromise(GenericPromise):
    """Options: `frequency` in minutes; `failure-amount` failures in the last `result-count` runs
    are an anomaly.
    """

    #: What both counts are where the release says nothing.
    default_count: ClassVar[int] = 1

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the options. Raises ValueError for one that makes no sense."""
        super().__init__(config)
        self.setPeriodicity(self.number("frequency", DEFAULT_PERIODICITY))
        self.result_count = int(self._count("result-count"))
        self.failure_amount = int(self._count("failure-amount"))
        if not 1 <= self.failure_amount <= self.result_count:
            raise ValueError(
                f"failure-amount is {self.failure_amount}, of result-count {self.result_count} "
                "runs: it must lie between 1 and that"
            )

    def is_interruptible(self, partition: Path) -> bool:
        """Whether a signal ends `sense` at any moment, and it leaves nothing behind."""
        return False

    def anomaly(self) -> BaseResult:
        """Count the last runs."""
        return self._anomaly(result_count=self.result_count, failure_amount=self.failure_amount)

    def number(self, key: str, default: float) -> float:
        """Return an option that is a number. Raises ValueError."""
        value = self.getConfig(key, default)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"the option {key} is a number, not {value!r}") from None

    def flag(self, key: str, default: bool) -> bool:
        """Return an option that is a yes or no: `1`, `true` and `yes` are a yes."""
        return str(self.getConfig(key, default)).strip().lower() in TRUE_WORDS

    def text(self, key: str) -> str:
        """Return an option without which there is nothing to check. Raises ValueError."""
        value = self.getConfig(key)
        if not value:
            raise ValueError(f"the option {key} is missing")
        return str(value)

    def _count(self, key: str) -> float:
        # check_command_execute has always spelled them with an underscore.
        return self.number(key, self.number(key.replace("-", "_"), self.default_count))


def is_address(host: str) -> bool:
    """Whether a host is an address: looking a name up takes as long as it takes."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
