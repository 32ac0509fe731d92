"""A node that is killed while it reports, at random moments: all usage counts, and counts once."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.node.fake_master import FakeMaster, Link, running_master
from tests.integration.node.world import DEADLINE

ROUNDS = 24
DOCUMENTS = 7
CHECKOUT = Path(__file__).parents[3]
JOURNAL = (
    '<journal><transaction type="Sale Packing List"><start_date/><stop_date/><reference>{}'
    "</reference><currency/><payment_mode/><category/><arrow><source/></arrow><movement>"
    "<resource>CPU</resource><quantity>1</quantity><price>0</price><VAT/></movement>"
    "</transaction></journal>"
)


class Node:
    """A process that forks one for each round of reports; `chance` says when that one is killed."""

    def __init__(self, master: FakeMaster, folder: Path, seed: int) -> None:
        self.master = master
        self.chance = random.Random(seed)
        self.usage = folder / "inst" / "var" / "xml_report" / "node"
        self.usage.mkdir(parents=True)
        self.killed = 0
        self._process = subprocess.Popen(
            (sys.executable, "-m", "tests.integration.node.reporting_node", master.url, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        assert self._said() == "ready"

    def use(self, number: int) -> list[str]:
        """Leave documents of usage, and return them."""
        documents = [JOURNAL.format(f"{number}.{each}") for each in range(DOCUMENTS)]
        for each, document in enumerate(documents):
            (self.usage / f"{each}.new").write_text(document)
            (self.usage / f"{each}.new").rename(self.usage / f"{number}.{each}.xml")
        return documents

    def report(self, number: int, *, in_peace: bool = False) -> None:
        """Make a round, and kill it: as a request comes or was taken in, or after a moment."""
        child = int(self._answer(str(number)))
        if not in_peace:
            self._kill(child)
        self.killed += int(self._answer("and")) == signal.SIGKILL
        self.master.link = lambda: Link.WHOLE

    def _kill(self, child: int) -> None:
        requests, fate = self.chance.randint(1, 3), self.chance.choice(list(Link))
        killed = threading.Event()
        seen = 0

        def link() -> Link:
            nonlocal seen
            seen += 1
            if seen < requests:
                return Link.WHOLE
            os.kill(child, signal.SIGKILL)
            killed.set()
            return fate

        if fate is not Link.WHOLE:
            self.master.link = link
            assert killed.wait(DEADLINE)
        else:
            killed.wait(self.chance.uniform(0.0, 0.2))
            os.kill(child, signal.SIGKILL)

    def _answer(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.communicate(timeout=DEADLINE)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_master() as master:
        master.takes_reports = True
        node = Node(master, tmp_path, seed=3)
        yield node
        node.stop()


def test_usage_counts_once_however_often_the_node_is_killed(node: Node) -> None:
    used: list[str] = []
    for number in range(ROUNDS):
        used += node.use(number)
        node.report(number)
    assert node.killed >= 20
    node.report(ROUNDS, in_peace=True)
    counted = [report["document"] for report in node.master.counted("usage")]
    assert sorted(counted) == sorted(used)
    for partition in ("slappart0", "slappart1"):
        told = [r for r in node.master.counted("instance") if r["partition"] == partition]
        orders = [int(report["timestamp"]) for report in told]
        assert orders == sorted(set(orders))
        assert (orders[-1], told[-1]["state"]) == (ROUNDS, "stopped")
    assert list(node.usage.iterdir()) == []
