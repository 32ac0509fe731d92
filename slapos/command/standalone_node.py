"""`python -m slapos.command.standalone_node slapos.cfg`: the agent of a standalone's node.

It is `slapos node run`, under the standalone's supervisord. When that supervisord is killed, it has
the standalone started again: the services do not notice.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from slapos.command.standalone_site import Site
from slapos.node.agent.agent import run_agent
from slapos.node.settings import read_node_settings
from slapos.system.clock import SystemClock

#: Seconds between two looks at whether supervisord is still there.
INTERVAL = 1.0


def main(configuration: Path) -> int:
    """Run the agent until SIGTERM; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    site = Site.at(configuration.parent.parent)
    supervisord = os.getppid()
    threading.Thread(target=_end_with, args=(supervisord,), daemon=True).start()
    status = run_agent(read_node_settings(configuration, {}))
    if os.getppid() != supervisord:
        _start_again(site)
    return status


def _end_with(supervisord: int) -> None:
    """Have the agent end when its supervisord has."""
    clock = SystemClock()
    while os.getppid() == supervisord:
        clock.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)


def _start_again(site: Site) -> NoReturn:
    """Become `slapos standalone start`, which ends what else its supervisord left behind."""
    site.pid_file("node").unlink(missing_ok=True)
    with site.log("node").open("ab") as log:
        for stream in (1, 2):  # those of supervisord are closed at their other end
            os.dup2(log.fileno(), stream)
    words = ["-m", "slapos.command", "standalone", "start", "--directory", str(site.directory)]
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
