"""`python -m slapos.command.standalone_node slapos.cfg`: the node of a standalone, pass after pass.

It is run by the standalone's supervisord. After each pass it touches `var/run/last-pass`. When that
supervisord is killed, it has the standalone started again: the services do not notice.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from slapos.command.standalone_site import Site
from slapos.node.assembly import make_doors
from slapos.node.passes import repeat_passes
from slapos.node.settings import read_node_settings

#: Seconds between two passes: one that finds nothing to do asks the master one question.
INTERVAL = 1.0


def main(configuration: Path) -> None:
    """Make passes until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _end)
    site = Site.at(configuration.parent.parent)
    supervisord = os.getppid()
    began = False

    def note_pass() -> bool:
        """Leave the time after each pass; never stop."""
        nonlocal began
        if os.getppid() != supervisord:
            _start_again(site)
        if began:
            site.last_pass.touch()
        began = True
        return False

    settings = read_node_settings(configuration, {})
    repeat_passes(make_doors(settings), interval=INTERVAL, should_stop=note_pass)


def _start_again(site: Site) -> NoReturn:
    """Become `slapos standalone start`, which ends what else its supervisord left behind."""
    site.pid_file("node").unlink(missing_ok=True)
    with site.log("node").open("ab") as log:
        for stream in (1, 2):  # those of supervisord are closed at their other end
            os.dup2(log.fileno(), stream)
    words = ["-m", "slapos.command", "standalone", "start", "--directory", str(site.directory)]
    os.execv(sys.executable, [sys.executable, *words])


def _end(_number: int, _frame: object) -> NoReturn:
    # Raised wherever the pass is, so that a build that runs is ended with what it has started.
    raise SystemExit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
