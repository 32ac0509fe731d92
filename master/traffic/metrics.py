"""What the master counts and measures, for Prometheus.

With `PROMETHEUS_MULTIPROC_DIR` in the environment, the processes of one machine keep their values
in files there, and each shows the sum: as the client library has it. What has ended still counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy import Engine, event

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
METRICS = "slapos_metrics"
#: In seconds: from what is answered from memory to what a client gives up on.
DURATIONS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class Metrics:
    """The metrics of one application."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._directory = environment.get(DIRECTORY)
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "slapos_master_requests",
            "Requests answered.",
            ("operation", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "slapos_master_request_seconds",
            "How long requests took.",
            ("operation",),
            buckets=DURATIONS,
            registry=registry,
        )
        self.waiting = self._gauge("slapos_master_feed_waiters", "Nodes that wait for a change.")
        self._connections = self._gauge(
            "slapos_master_database_connections", "Database connections in use."
        )

    def answered(self, operation: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(operation, method, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)

    def watch(self, engine: Engine) -> None:
        """Count the connections of an engine that are in use."""

        def taken(*_told: Any) -> None:
            self._connections.inc()

        def given_back(*_told: Any) -> None:
            self._connections.dec()

        event.listen(engine, "checkout", taken)
        event.listen(engine, "checkin", given_back)

    def text(self, measured: Collector) -> bytes:
        """Return all of it, and what else is measured, as Prometheus reads it."""
        beside = CollectorRegistry()
        beside.register(measured)
        if self._directory is None or not Path(self._directory).is_dir():
            return generate_latest(self._registry) + generate_latest(beside)
        MultiProcessCollector(beside, self._directory)  # type: ignore[no-untyped-call]
        return generate_latest(beside)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, registry=self._registry, multiprocess_mode="livesum")


def shared_by_processes(folder: Path) -> dict[str, str]:
    """Return what the environment of processes needs, so that they count together from now on."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.glob("*.db"):
        old.unlink()
    return {DIRECTORY: str(folder)}


def forget_process(folder: Path, process_id: int) -> None:
    """Count no longer what a process had in use that has ended."""
    mark_process_dead(process_id, str(folder))  # type: ignore[no-untyped-call]
