"""What keeping partitions apart costs: by program, by idle pass, by change of the firewall."""

import ctypes
import os
import shutil
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, cast

from bench.measure import Figure, in_turn, show, timed
from slapos.node.format.network_record import NetworkRecord, write_record
from slapos.node.isolate.firewall import Firewall
from slapos.node.isolate.isolation import make_isolation
from slapos.node.layout import Layout
from slapos.node.settings import NodeSettings
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from slapos.system.clock import SystemClock
from slapos.system.runner import ProcessLimits, SystemRunner

AMOUNTS = (10, 100, 1000)
URL = "http://example.com/software.cfg"
RUNS = 7
NEW_NETWORK = 0x40000000


class Nobody:
    """A master that knows of no other node."""

    def tree_addresses(self, node: str, partition: str) -> list[str]:
        """Return nothing."""
        return []


def main() -> None:
    figures = [*_program(), *_idle_pass()]
    if os.geteuid() == 0 and shutil.which("nft", path="/usr/sbin:/sbin"):
        figures += _firewall()
    else:
        print("the firewall is not measured: it needs root and nftables")
    show(figures)


def _program() -> list[Figure]:
    runner = SystemRunner()

    def run(limits: ProcessLimits | None) -> None:
        for _ in range(20):
            runner.run(["/bin/true"], cwd=Path("/"), environment={}, limits=limits)

    figure = in_turn(
        "20 programs run within limits",
        lambda: run(ProcessLimits(open_files=1000)),
        "without",
        lambda: run(None),
        runs=RUNS,
    )
    return [figure]


def _known(amount: int, *, release: bool = True) -> NodeInformation:
    return NodeInformation(
        reference="node",
        partitions=tuple(
            PartitionInformation(
                node="node",
                reference=f"slappart{number}",
                state=InstanceState.STARTED,
                software_url=URL if release else None,
                parameters={"timestamp": "1", "root_instance_title": f"tree {number // 3}"},
                filter={"partition_open_files": "1000"},
            )
            for number in range(amount)
        ),
    )


def _idle_pass() -> list[Figure]:
    """Seeing for each partition that its limits are as wanted."""
    found = []
    for amount in AMOUNTS:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            settings = NodeSettings(
                computer_id="node",
                master_url="http://127.0.0.1:1/",
                software_root=root / "soft",
                instance_root=root / "inst",
            )
            release = settings.layout.release(URL)
            release.mkdir(parents=True)
            (release / "limits.json").write_text('{"open_files": 500}')
            isolation = make_isolation(settings)
            partitions = _known(amount).partitions

            def look(some: Any, isolation: Any = isolation, release: Path = release) -> None:
                for wanted in some:
                    isolation.limit(wanted, release)

            look(partitions)
            # By tens, so that what else the machine does is a few slow tens among many.
            tens = [partitions[first : first + 10] for first in range(0, amount, 10)]
            times = [timed(partial(look, ten)) for _ in range(RUNS) for ten in tens]
            seconds = statistics.median(times) / 10
        found.append(
            Figure(f"limits of one of {amount} partitions, nothing to do", seconds, runs=RUNS)
        )
    return found


def _firewall() -> list[Figure]:
    """Measure in a network namespace, in which this process then stays."""
    if ctypes.CDLL(None).unshare(NEW_NETWORK):
        print("the firewall is not measured: this machine makes no network namespaces")
        return []
    found = []
    for amount in AMOUNTS:
        with tempfile.TemporaryDirectory() as folder:
            found += _firewall_of(amount, Path(folder))
    return found


def _firewall_of(amount: int, root: Path) -> list[Figure]:
    layout = Layout(root / "soft", root / "inst")
    known = _known(amount)
    assigned = {}
    for number, wanted in enumerate(known.partitions):
        layout.partition(wanted.reference).mkdir(parents=True)
        os.chown(layout.partition(wanted.reference), 20_000 + number, 20_000 + number)
        address = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
        assigned[wanted.reference] = {"ipv4": address, "ipv6": f"2001:db8::{number + 2:x}"}
    write_record(layout.state / "network.json", NetworkRecord(assigned=assigned), "boot")
    firewall = Firewall(layout, SystemRunner(), SystemClock(), dict(os.environ), is_wanted=True)
    client = cast(SlapClient, Nobody())
    orders = [known, NodeInformation(reference="node", partitions=known.partitions[1:])]

    def change() -> None:
        orders.reverse()
        assert firewall.keep(orders[0], client)

    change()
    changes = statistics.median(timed(change) for _ in range(RUNS))
    looks = statistics.median(timed(lambda: firewall.keep(orders[0], client)) for _ in range(RUNS))
    firewall.remove()
    return [
        Figure(f"firewall of {amount} partitions, one changes", changes, runs=RUNS),
        Figure(f"firewall of {amount} partitions, nothing to do", looks, runs=RUNS),
    ]
