"""What the node counts and measures, by name, for whoever asks.

Every part of the node may count here, so nothing heavy is imported.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

#: What is measured, by the values of its labels.
Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, eq=False)
class Metric:
    """Something that is counted (it only grows, until the process ends) or measured."""

    kind: Literal["counter", "gauge"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


# The node's own work: whoever does it counts it.
PASSES = Metric(
    "counter", "slapos_partition_passes_total", "Partitions processed.", ("result",)
)  # done, waiting, failed, promise_failed
BUILDOUTS = Metric(
    "counter", "slapos_instance_buildouts_total", "Buildouts of instances run.", ("result",)
)  # done, waiting, failed
BUILDS = Metric(
    "counter", "slapos_release_builds_total", "Software releases built.", ("result",)
)  # done, failed
PROMISES = Metric(
    "counter",
    "slapos_promise_results_total",
    "Results of promises, each time a partition is checked; before its turn the last one counts.",
    ("result",),
)  # kept, failed
PROMISES_FAILING = Metric(
    "gauge", "slapos_promises_failing", "Promises that did not hold the last time.", ("partition",)
)
RESTARTS = Metric(
    "counter", "slapos_service_restarts_total", "Services that ended and were started again."
)
REPORTS_WAITING = Metric(
    "gauge", "slapos_reports_waiting", "Reports that the master does not have yet."
)
FEED_CONNECTED = Metric(
    "gauge", "slapos_feed_connected", "1 while the node waits on the master's change feed."
)
MASTER_ANSWERED = Metric(
    "gauge",
    "slapos_master_last_answer_timestamp_seconds",
    "When the master last answered, in seconds since 1970.",
)


class Metrics:
    """The values; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {}
        self._watched: dict[Metric, Callable[[], float | None]] = {}

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter; `labels` are the values of its labels in their order."""
        with self._lock:
            values = self._values.setdefault(metric, {})
            values[labels] = values.get(labels, 0.0) + by

    def measure(self, metric: Metric, value: float, *labels: str) -> None:
        """Say what a gauge shows now."""
        with self._lock:
            self._values.setdefault(metric, {})[labels] = value

    def replace(self, metric: Metric, values: Values) -> None:
        """Say all that a metric shows now: what is not among it, like a partition, is gone."""
        with self._lock:
            self._values[metric] = dict(values)

    def retain(self, metric: Metric, labels: Collection[str]) -> None:
        """Forget what a metric with one label shows of others, like partitions that are gone."""
        with self._lock:
            values = self._values.get(metric, {})
            self._values[metric] = {key: value for key, value in values.items() if key[0] in labels}

    def watch(self, metric: Metric, read: Callable[[], float | None]) -> None:
        """Have a gauge read each time somebody asks; None is not shown."""
        self._watched[metric] = read

    def value(self, metric: Metric, *labels: str) -> float | None:
        """Return what a metric shows, None when nobody said."""
        with self._lock:
            return self._values.get(metric, {}).get(labels)

    def text(self) -> str:
        """Return all of it in Prometheus' text format, version 0.0.4."""
        for metric, read in self._watched.items():
            value = read()
            self.replace(metric, {} if value is None else {(): value})
        with self._lock:
            copied = {metric: dict(values) for metric, values in self._values.items()}
        lines: list[str] = []
        for metric in sorted(copied, key=lambda one: one.name):
            lines.append(f"# HELP {metric.name} {_escaped(metric.help, quotes=False)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += _lines(metric, copied[metric].items())
        return "".join(f"{line}\n" for line in lines)


def _lines(metric: Metric, values: Iterable[tuple[tuple[str, ...], float]]) -> Iterable[str]:
    for labels, value in values:
        given = ",".join(
            f'{name}="{_escaped(label)}"' for name, label in zip(metric.labels, labels, strict=True)
        )
        yield f"{metric.name}{f'{{{given}}}' if given else ''} {value!r}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
