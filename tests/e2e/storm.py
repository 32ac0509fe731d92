"""A storm: orders and changes by a seed, and a `kill -9` after each, of whatever is at work then.

What was killed is started again as a service manager would; nothing else helps.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from slapos.protocol.errors import MasterFailed, MasterUnreachable, NotFound, NotReady
from slapos.protocol.states import InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase
from tests.e2e.counted import SOFTWARE, services, starts, write_release
from tests.e2e.deployment import MASTER, NODE, Deployment, until

#: The orders, and their software types.
TYPES = {"one": "default", "two": "default", "three": "default", "tree": "deep2"}
#: Seconds that may pass between two blows.
LONGEST_PAUSE = 0.3
#: Seconds that one waits for work of the kind that was killed least before other work is killed.
PATIENCE = 0.8
#: Seconds in which a node that is beaten acts on an order.
DELAY = 15.0
#: Seconds that everything gets to come right afterwards, back-off included.
SETTLING = 180.0
#: What the node has at work.
WORK = ("a build", "work in a partition", "the warm process")
STARTED, STOPPED, DESTROYED = InstanceState


@dataclass
class Order:
    """What was asked for under a title, and when it was stopped or destroyed."""

    state: InstanceState
    value: int = 0
    lowered_at: list[float] = field(default_factory=list)


class Storm:
    """One deployment, beaten."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self._deployment = deployment
        self._chance = random.Random(seed)
        self._release = deployment.root / "release"
        self._url = write_release(self._release)
        self.orders = {title: Order(STARTED) for title in TYPES}
        self.killed: Counter[str] = Counter()
        #: When supervisord was killed: everything it ran is then started once more.
        self._fell: list[float] = []

    def begin(self) -> None:
        """Place the orders, and wait until all is there."""
        for title in self.orders:
            self._order(title)
        self._deployment.start(NODE)
        until(self._is_settled, "all is there before the storm", SETTLING)

    def blow(self, kills: int) -> None:
        """Change something and kill something, so many times."""
        for _ in range(kills):
            self._change()
            time.sleep(self._chance.uniform(0, LONGEST_PAUSE))
            self._kill()

    def calm(self) -> None:
        """Wait until all is as ordered, and check that nothing was lost or doubled or restarted."""
        try:
            until(self._is_settled, "all is as ordered after the storm", SETTLING)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._unsettled()}") from None
        self._check_master()
        for title, order in self.orders.items():
            for instance in self._instances(title):
                assert instance.partition is not None
                self._check_starts(self._deployment.partition(instance.partition), order)

    # What happens.

    def _change(self) -> None:
        """Change an order, or the release."""
        title = self._chance.choice(list(self.orders))
        order = self.orders[title]
        kind = self._chance.choices(("value", "stop", "destroy", "release"), weights=(6, 2, 1, 1))[
            0
        ]
        if kind == "release":
            self._change_release()
            return
        if order.state is not STARTED:
            order.state = STARTED
        elif kind == "stop":
            order.state = STOPPED
        elif kind == "destroy":
            order.state = DESTROYED
        else:
            order.value += 1
        self._order(title)
        if order.state is not STARTED:
            order.lowered_at.append(time.time())

    def _change_release(self) -> None:
        """Have it built again; nothing else comes of it."""
        (self._release / "software.cfg").write_text(f"{SOFTWARE}# {self._chance.random()}\n")

    def _order(self, title: str) -> None:
        """Ask until the master has taken it."""
        order, deadline = self.orders[title], time.monotonic() + SETTLING
        while time.monotonic() < deadline:
            try:
                self._deployment.client().request(
                    software_url=self._url,
                    title=title,
                    software_type=TYPES[title],
                    parameters={"value": f"{title}-{order.value}"},
                    state=order.state,
                )
            except NotReady:  # it has no partition yet, or has none any more
                return
            except (MasterUnreachable, MasterFailed):
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"the master does not take the order {title}")

    def _kill(self) -> None:
        """Kill one of what is there: the node always is."""
        kill = self._chance.choices(list(self._ways), list(self._ways.values()))[0]
        self.killed[kill(self) or self._kill_node()] += 1

    def _kill_node(self) -> str:
        self._deployment.kill(NODE)
        self._deployment.start(NODE)
        return "the node"

    def _kill_master(self) -> str:
        self._deployment.kill(MASTER)
        self._deployment.start(MASTER)
        return "the master"

    def _kill_supervisord(self) -> str | None:
        with suppress(OSError, ValueError):
            pid = int((self._deployment.root / "inst/var/run/supervisord.pid").read_text())
            if _is_of(pid, self._deployment.root):
                self._fell.append(time.time())
                os.kill(pid, signal.SIGKILL)
                return "supervisord"
        return None

    def _kill_work(self) -> str | None:
        """Make the node work, and kill a buildout, a promise, whatever of its is at work then."""
        self._change()
        self._change_release()
        wanted = min(WORK, key=lambda kind: self.killed[kind])
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self._at_work()
            is_over = time.monotonic() > deadline
            kind = wanted if wanted in found else next(iter(found), None) if is_over else None
            if kind is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._chance.choice(found[kind]), signal.SIGKILL)
                    return kind
            if is_over and not found:
                return None
            time.sleep(0.005)

    def _at_work(self) -> dict[str, list[int]]:
        """Return the processes that the node has started, by what they are."""
        found: dict[str, list[int]] = {}
        for pid in _below(self._deployment.processes[NODE].pid):
            with suppress(OSError):
                folder = Path(f"/proc/{pid}/cwd").readlink().parent
                if b"warm_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.setdefault("the warm process", []).append(pid)
                elif folder == self._deployment.root / "soft":
                    found.setdefault("a build", []).append(pid)
                elif folder == self._deployment.root / "inst":
                    found.setdefault("work in a partition", []).append(pid)
        return found

    #: How something is killed, and how often: seldom the master, for which all wait until it is
    #: back.
    _ways: dict[Callable[["Storm"], str | None], int] = {  # noqa: RUF012
        _kill_node: 3,
        _kill_master: 2,
        _kill_supervisord: 3,
        _kill_work: 9,
    }

    # What is to be.

    def _instances(self, title: str) -> tuple[InstanceStatus, ...]:
        try:
            return self._deployment.tree(title).instances
        except NotFound:
            return ()

    def _is_settled(self) -> bool:
        return not self._unsettled()

    def _unsettled(self) -> list[str]:
        """Return what is not as ordered."""
        found = []
        used = set()
        for title, order in self.orders.items():
            instances = self._instances(title)
            if order.state is DESTROYED:
                found += [f"{each.title} is {each.phase}" for each in instances]
                continue
            if len(instances) != 1 + (TYPES[title] == "deep2"):
                found.append(f"{title} has {len(instances)} instances")
            for each in instances:
                used.add(each.partition)
                if each.phase is not Phase.HEALTHY:
                    found.append(f"{each.title} is {each.phase} ({each.message})")
                elif each.requested_state is not order.state:
                    found.append(f"{each.title} is asked to be {each.requested_state}")
                found += self._wrong_service(each, order, f"{title}-{order.value}")
        for folder in sorted((self._deployment.root / "inst").glob("part*")):
            if folder.name not in used and services(folder):
                found.append(f"{folder.name} is free, and something runs in it")
        return found

    def _wrong_service(self, instance: InstanceStatus, order: Order, value: str) -> list[str]:
        if instance.partition is None:
            return [f"{instance.title} has no partition"]
        folder = self._deployment.partition(instance.partition)
        running, last = services(folder), starts(folder)[-1:]
        if order.state is not STARTED:
            return [f"{instance.title} runs"] if running else []
        if [(start.pid, start.value) for start in last] != [(pid, value) for pid in running]:
            return [f"{instance.title}: {running} run, not {value}; the last start is {last}"]
        if instance.connection.get("value") != value:
            return [f"{instance.title} has published {instance.connection}"]
        return []

    def _check_master(self) -> None:
        """See that the master knows each instance once, and nothing but what was ordered."""
        known = self._deployment.client().node_information("node")
        busy = [partition for partition in known.partitions if not partition.is_free]
        wanted = sum(
            1 + (TYPES[title] == "deep2")
            for title, order in self.orders.items()
            if order.state is not DESTROYED
        )
        titles = [partition.title for partition in busy]
        assert len(titles) == len(set(titles)) == wanted, titles

    def _check_starts(self, partition: Path, order: Order) -> None:
        """See that nothing was started again without a need."""
        lowered = list(order.lowered_at)
        for before, after in pairwise(starts(partition)):
            if before.value != after.value or any(
                before.at - 1 < at < after.at for at in self._fell
            ):
                continue
            # A node that was away may first start what is on its disk, and then hear of the order.
            reasons = [at for at in lowered if before.at - DELAY < at < after.at]
            assert reasons, f"{partition.name} was started at {before} and again at {after}"
            lowered.remove(reasons[0])


def _below(pid: int) -> Iterator[int]:
    """Yield the processes below one, itself left out."""
    children: list[str] = []
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            children += path.read_text().split()
    for child in map(int, children):
        yield child
        yield from _below(child)


def _is_of(pid: int, root: Path) -> bool:
    with suppress(psutil.Error):
        return any(str(root) in word for word in psutil.Process(pid).cmdline())
    return False
