"""Measure once what partitions and the machine use, store it, and report days that are over.

`slapos node run` does this every minute; this is for a node without it, from cron, at the beginning
of each minute. It also measures the folders of partitions that are due, for 30 s at most.

exit status: 0 done, or left to 'slapos node run', 1 failed, 5 root is needed
"""

import argparse
import logging
import os

from slapos.command.node_options import add_configuration, may_run, node_settings
from slapos.node.assembly import make_doors
from slapos.node.monitor.monitor import Monitor
from slapos.node.outcome import ExitStatus
from slapos.node.supervise.configuration import write_main
from slapos.system.process_lock import AlreadyRunning, process_lock

logger = logging.getLogger(__name__)

#: Seconds for which folders are measured.
FOLDERS_TIME = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure."""
    settings = node_settings(arguments)
    if not may_run(settings.root_check):
        return ExitStatus.NOT_ROOT
    os.umask(0o027)
    write_main(settings.layout)
    doors = make_doors(settings)
    try:
        with process_lock(settings.layout.monitor_lock):
            monitor = Monitor(doors)
            is_well = monitor.sample()
            deadline = doors.clock.monotonic() + FOLDERS_TIME
            while doors.clock.monotonic() < deadline and monitor.folders.measure_next():
                continue
    except AlreadyRunning as error:
        logger.info("another process measures: %s", error)
        return 0
    doors.reports.try_flush()
    return 0 if is_well else 1
