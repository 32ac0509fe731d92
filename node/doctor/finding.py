"""What a check of the doctor is given."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slapos.node.doors import Doors
from slapos.protocol.messages import NodeInformation
from slapos.system.finding import Finding


@dataclass(frozen=True, kw_only=True)
class MasterAnswer:
    """What the master answered to one question: `information`, or `error` why there is none.

    `latency` is in seconds; `ahead` by how many seconds our clock is before the master's, None
    when the master told no time.
    """

    information: NodeInformation | None = None
    error: str = ""
    latency: float = 0.0
    ahead: float | None = None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The node that is examined: its doors, the folders of its partitions, its master's answer.

    `unit` is where the unit file belongs that has systemd run the agent, None where none belongs.
    """

    doors: Doors
    partitions: tuple[Path, ...]
    answer: MasterAnswer
    unit: Path | None = None


Check = Callable[[Examined], Iterator[Finding]]
