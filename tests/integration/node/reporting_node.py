"""A node that only reports, in processes that are there to be killed.

Run as a program with the master's URL and a folder. A number is read for each round; the round is
forked and its process id printed. After one more line its end is waited for, and the signal that
ended it is printed.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from slapos.node.assembly import make_doors
from slapos.node.report import sender
from slapos.node.report.usage import CollectedUsage
from slapos.node.settings import NodeSettings
from slapos.protocol.errors import SlapOSError
from slapos.protocol.states import InstanceState


def make_round(url: str, folder: Path, number: int) -> None:
    """Report two states and all usage that lies there, and send it."""
    settings = NodeSettings(
        master_url=url,
        computer_id="node",
        software_root=folder / "soft",
        instance_root=folder / "inst",
    )
    doors = make_doors(settings)
    doors.reports.hand_over(lambda: None)
    for partition in ("slappart0", "slappart1"):
        state = InstanceState.STARTED if number % 2 else InstanceState.STOPPED
        doors.reports.state(partition, state, timestamp=str(number))
    CollectedUsage(doors).hand_over()
    with suppress(SlapOSError):
        doors.reports.flush()


def main() -> None:
    sender.BATCH = 3  # several requests in each round
    url, folder = sys.argv[1], Path(sys.argv[2])
    print("ready", flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            make_round(url, folder, int(line))
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()  # until then nobody else gets its process id
        print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
