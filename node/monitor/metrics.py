"""What the node counts and measures, by name, for whoever asks.

Every part of the node may count here, so nothing heavy is imported.
"""

import threading
from collections.abc import Iterable, Mapping
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


# The node's own work: whoever does it counts it. Results are words in the past tense.
PASSES = Metric(
    "counter", "slapos_partition_passes_total", "Partitions processed.", ("result",)
)  # done, waiting, failed, promise_failed
BUILDOUTS = Metric(
    "counter", "slapos_instance_buildouts_total", "Buildouts of instances run.", ("result",)
)  # done, failed
BUILDS = Metric(
    "counter", "slapos_release_builds_total", "Builds of software releases.", ("result",)
)  # done, failed
PROMISES = Metric(
    "counter", "slapos_promise_checks_total", "Promises checked.", ("result",)
)  # kept, failed
PROMISES_FAILING = Metric(
    "gauge", "slapos_promises_failing", "Promises that did not hold the last time."
)
RESTARTS = Metric(
    "counter", "slapos_service_restarts_total", "Services that ended and were started again."
)
REPORTS_SENT = Metric(
    "counter", "slapos_reports_sent_total", "Reports the master answered.", ("result",)
)  # taken, refused
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

    def value(self, metric: Metric, *labels: str) -> float | None:
        """Return what a metric shows, None when nobody said."""
        with self._lock:
            return self._values.get(metric, {}).get(labels)

    def text(self) -> str:
        """Return all of it in Prometheus' text format, version 0.0.4."""
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
