"""What the rooms of the node are handed: settings, the master, programs, time, supervisord."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slapos.node.isolate.firewall import Firewall
from slapos.node.isolate.isolation import Isolation
from slapos.node.monitor.metrics import Metrics
from slapos.node.promise.check import PromiseChecker
from slapos.node.report.reports import Reports
from slapos.node.settings import NodeSettings
from slapos.node.supervise.supervisor import Supervisor
from slapos.protocol.slap_client import SlapClient
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers
from slapos.system.runner import Runner


@dataclass(frozen=True, kw_only=True)
class Doors:
    """The doors of the node to everything outside it; `python` is what builds are started with."""

    settings: NodeSettings
    client: SlapClient
    reports: Reports
    runner: Runner
    clock: Clock
    identifiers: Identifiers
    supervisor: Supervisor
    promises: PromiseChecker
    isolation: Isolation
    firewall: Firewall
    environment: Mapping[str, str]
    python: str
    metrics: Metrics = field(default_factory=Metrics)

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return self.clock.now().timestamp()
