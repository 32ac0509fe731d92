"""How the benchmarks measure: two things in turn, medians, a ratio pair by pair."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Figure:
    """One figure in `unit`, and its ratio to what ran beside it."""

    name: str
    median: float
    unit: str = "s"
    beside: str | None = None
    beside_median: float | None = None
    ratio: float | None = None
    runs: int = 1
    notes: dict[str, Any] = field(default_factory=dict)


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds `action` took."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_turn(
    name: str,
    ours: Callable[[], object],
    beside: str,
    other: Callable[[], object],
    *,
    runs: int = 7,
) -> Figure:
    """Run both in turn (A B A B …, after one of each uncounted); ratio = median of ours/other."""
    ours()
    other()
    pairs = [(timed(ours), timed(other)) for _ in range(runs)]
    return of_pairs(name, beside, pairs)


def of_pairs(name: str, beside: str, pairs: Sequence[tuple[float, float]]) -> Figure:
    """Return the figure of (ours, other) measured in turn; ratio = median of ours/other."""
    return Figure(
        name=name,
        median=statistics.median(a for a, _ in pairs),
        beside=beside,
        beside_median=statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
        runs=len(pairs),
    )


def show(figures: list[Figure]) -> None:
    """Print figures as lines for people, then as one JSON document."""
    for figure in figures:
        line = f"{figure.name}: {figure.median:.4g} {figure.unit}"
        if figure.ratio is not None:
            line += f" = {figure.ratio:.3g} x {figure.beside} ({figure.beside_median:.4g})"
        print(line, flush=True)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps({**machine, "figures": [asdict(figure) for figure in figures]}))
