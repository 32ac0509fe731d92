"""How long to wait after what failed: longer each time, and never in step with others."""

from slapos.system.identifier import Identifiers


class BackOff:
    """Seconds that double with each failure, from `first` to `longest`; half of them by chance."""

    def __init__(
        self, identifiers: Identifiers, *, first: float = 1.0, longest: float = 60.0
    ) -> None:
        self._identifiers = identifiers
        self._first = first
        self._longest = longest
        self._failures = 0

    def failed(self) -> float:
        """Return how long to wait after one more failure."""
        wait = min(self._first * 2.0 ** min(self._failures, 30), self._longest)
        self._failures += 1
        return wait * (1.0 + self._identifiers.fraction()) / 2.0

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0
